// Little-endian fields of disk formats: loaded by value, never through a cast of the buffer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/base/bytes.h"

namespace gabion {

// REQUIRES of these: the field lies within `bytes`. The machine is little-endian: see base/bytes.h.
inline uint16_t LoadLe16(Bytes bytes, std::size_t at) {
  uint16_t value;
  std::memcpy(&value, bytes.subspan(at, sizeof(value)).data(), sizeof(value));
  return value;
}
inline uint32_t LoadLe32(Bytes bytes, std::size_t at) {
  uint32_t value;
  std::memcpy(&value, bytes.subspan(at, sizeof(value)).data(), sizeof(value));
  return value;
}
inline uint64_t LoadLe64(Bytes bytes, std::size_t at) {
  uint64_t value;
  std::memcpy(&value, bytes.subspan(at, sizeof(value)).data(), sizeof(value));
  return value;
}

}  // namespace gabion
