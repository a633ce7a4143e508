#pragma once
// Database: one SQLite file, with Results for return codes. Internal to sys/sqlite. Not thread-safe: its
// owner locks.
#include <sqlite3.h>

#include <memory>
#include <string>

#include "base/result.hpp"

namespace hf::sqlite {

// A prepared statement. Parameters count from 1, columns from 0.
class Statement {
 public:
  Statement(std::shared_ptr<sqlite3> database, sqlite3_stmt* statement)
      : database_(std::move(database)), statement_(statement, sqlite3_finalize) {}
  Statement& bind(int index, std::int64_t value);
  Statement& bind(int index, const std::string& bytes);  // as a blob
  // True: there is a row. False: done.
  Result<bool> step();
  Status run();  // for statements without rows
  std::int64_t integer(int column) const;
  std::string bytes(int column) const;

 private:
  std::shared_ptr<sqlite3> database_;  // shared: a statement must not outlive its connection
  std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement_;
};

class Database {
 public:
  // Opens or makes the file and takes it for this process alone. Code::conflict: another one has it.
  static Result<Database> open(const std::string& path);
  Result<Statement> prepare(const char* sql) const;
  Status execute(const char* sql) const;

 private:
  explicit Database(std::shared_ptr<sqlite3> handle) : handle_(std::move(handle)) {}
  std::shared_ptr<sqlite3> handle_;
};

}  // namespace hf::sqlite
