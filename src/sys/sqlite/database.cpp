#include "sys/sqlite/database.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

namespace hf::sqlite {
namespace {

Error error_of(sqlite3* handle, int result) {
  const char* name = sqlite3_db_filename(handle, "main");
  const std::string path = name == nullptr ? "the store's file" : name;
  const std::string text = sqlite3_errmsg(handle);
  switch (result & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return {Code::corrupt, fmt::format("{} is damaged ({}). Restore it from a backup.", path, text)};
    case SQLITE_FULL:
      return {Code::no_room, fmt::format("The disk of {} is full. Make room on it.", path)};
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return {Code::conflict, fmt::format("Another process uses {}. Stop it first.", path)};
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
      return {Code::denied, fmt::format("{} cannot be written ({}). Check its owner and mode.", path, text)};
    default:
      return {Code::failed, fmt::format("{} cannot be used: {}.", path, text)};
  }
}

// Made here and not by SQLite, for its mode: the file holds secrets.
Status make_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return from_errno(fmt::format("Cannot open {}", path), errno);
  ::close(fd);
  return {};
}

}  // namespace

Statement& Statement::bind(int index, std::int64_t value) {
  sqlite3_bind_int64(statement_.get(), index, value);
  return *this;
}

Statement& Statement::bind(int index, const std::string& bytes) {
  sqlite3_bind_blob64(statement_.get(), index, bytes.data(), bytes.size(), SQLITE_TRANSIENT);
  return *this;
}

Result<bool> Statement::step() {
  const int result = sqlite3_step(statement_.get());
  if (result == SQLITE_ROW) return true;
  if (result == SQLITE_DONE) return false;
  return error_of(database_.get(), result);
}

Status Statement::run() {
  TRY(step());
  return {};
}

std::int64_t Statement::integer(int column) const { return sqlite3_column_int64(statement_.get(), column); }

std::string Statement::bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return data == nullptr ? std::string()
                         : std::string(static_cast<const char*>(data), static_cast<std::size_t>(size));
}

Result<Database> Database::open(const std::string& path) {
  TRY(make_file(path));
  sqlite3* raw = nullptr;
  const int result =
      sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::shared_ptr<sqlite3> handle(raw, sqlite3_close_v2);  // shared with its statements
  if (result != SQLITE_OK) return error_of(raw, result);
  sqlite3_extended_result_codes(raw, 1);
  Database database(std::move(handle));
  // Exclusive before WAL: then the file has no shared memory, and the first transaction locks it until it is
  // closed.
  TRY(database.execute("PRAGMA locking_mode = EXCLUSIVE"));
  TRY(database.execute("PRAGMA journal_mode = WAL"));
  TRY(database.execute("PRAGMA synchronous = FULL"));
  TRY(database.execute("BEGIN EXCLUSIVE"));
  TRY(database.execute("COMMIT"));
  TRY_ASSIGN(Statement check, database.prepare("PRAGMA quick_check(1)"));
  TRY(check.step());
  if (check.bytes(0) != "ok")
    return Error{Code::corrupt,
                 fmt::format("{} is damaged ({}). Restore it from a backup.", path, check.bytes(0))};
  return database;
}

Result<Statement> Database::prepare(const char* sql) const {
  sqlite3_stmt* statement = nullptr;
  const int result = sqlite3_prepare_v2(handle_.get(), sql, -1, &statement, nullptr);
  if (result != SQLITE_OK) return error_of(handle_.get(), result);
  return Statement(handle_, statement);
}

Status Database::execute(const char* sql) const {
  const int result = sqlite3_exec(handle_.get(), sql, nullptr, nullptr, nullptr);
  if (result != SQLITE_OK) return error_of(handle_.get(), result);
  return {};
}

}  // namespace hf::sqlite
