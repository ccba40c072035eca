// Bytes that nobody else may see: keys and passphrases.
#pragma once

#include <string.h>

#include <cstddef>
#include <memory>
#include <utility>

#include "engine/base/units.h"

namespace gabion {

// Owns its memory and wipes it when it lets go. Cannot be copied, compared or printed: who needs
// the bytes asks for them, and copies them nowhere. Move-only; any thread.
class Secret {
 public:
  Secret() = default;
  // `size` zeros, to be filled in.
  explicit Secret(std::size_t size) : bytes_(std::make_unique<std::byte[]>(size)), size_(size) {}
  Secret(Secret&& other) noexcept
      : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, 0)) {}
  Secret& operator=(Secret&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Secret() {
    if (bytes_ != nullptr) explicit_bzero(bytes_.get(), size_);
  }

  Bytes bytes() const { return {bytes_.get(), size_}; }
  MutableBytes bytes() { return {bytes_.get(), size_}; }
  std::size_t size() const { return size_; }

  // Keeps the first `size` bytes. REQUIRES: not more than there are.
  void Shorten(std::size_t size) {
    explicit_bzero(bytes_.get() + size, size_ - size);
    size_ = size;
  }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  std::size_t size_ = 0;
};

}  // namespace gabion
