#pragma once
// Packing: a batch's body with LZ4 or zstd. An object for each thread: it keeps the libraries' working memory.
#include <memory>

#include "engine/wire/frame.hpp"

namespace hf::engine::wire {

class Packer {
 public:
  Packer();
  ~Packer();
  // Writes to `to` and returns the size; 0 if it would not be shorter than `body`.
  std::size_t pack(Packing packing, Bytes body, std::span<std::byte> to);
  // Fills `to` exactly; false if the packed bytes are not that.
  bool unpack(Packing packing, Bytes packed, std::span<std::byte> to);

 private:
  struct Contexts;
  std::unique_ptr<Contexts> contexts_;
};

}  // namespace hf::engine::wire
