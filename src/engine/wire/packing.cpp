#include "engine/wire/packing.hpp"

#include <lz4.h>
#include <zstd.h>

namespace hf::engine::wire {
namespace {
constexpr int kZstdLevel = 1;  // a slow link is still faster than the levels above

const char* chars(const std::byte* bytes) { return reinterpret_cast<const char*>(bytes); }
char* chars(std::byte* bytes) { return reinterpret_cast<char*>(bytes); }
}  // namespace

struct Packer::Contexts {
  ZSTD_CCtx* compress = nullptr;
  ZSTD_DCtx* decompress = nullptr;
};

Packer::Packer() : contexts_(std::make_unique<Contexts>()) {}
Packer::~Packer() {
  ZSTD_freeCCtx(contexts_->compress);
  ZSTD_freeDCtx(contexts_->decompress);
}

std::size_t Packer::pack(Packing packing, Bytes body, std::span<std::byte> to) {
  if (body.size() < 2) return 0;
  const std::size_t room = std::min(to.size(), body.size() - 1);
  if (packing == Packing::lz4) {
    const int size = LZ4_compress_default(chars(body.data()), chars(to.data()), static_cast<int>(body.size()),
                                          static_cast<int>(room));
    return size > 0 ? static_cast<std::size_t>(size) : 0;
  }
  if (contexts_->compress == nullptr) contexts_->compress = ZSTD_createCCtx();
  const std::size_t size =
      ZSTD_compressCCtx(contexts_->compress, to.data(), room, body.data(), body.size(), kZstdLevel);
  return ZSTD_isError(size) != 0 ? 0 : size;
}

bool Packer::unpack(Packing packing, Bytes packed, std::span<std::byte> to) {
  if (packing == Packing::lz4) {
    const int size = LZ4_decompress_safe(chars(packed.data()), chars(to.data()),
                                         static_cast<int>(packed.size()), static_cast<int>(to.size()));
    return size >= 0 && static_cast<std::size_t>(size) == to.size();
  }
  if (contexts_->decompress == nullptr) contexts_->decompress = ZSTD_createDCtx();
  return ZSTD_decompressDCtx(contexts_->decompress, to.data(), to.size(), packed.data(), packed.size()) ==
         to.size();
}

}  // namespace hf::engine::wire
