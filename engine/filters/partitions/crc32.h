// The checksum of GPT headers and entries.
#pragma once

#include <cstdint>

#include "engine/base/units.h"

namespace gabion::partitions {

// CRC-32 of IEEE 802.3 (reflected polynomial 0xedb88320). `before`: the result for the bytes that
// come before these.
uint32_t Crc32(Bytes bytes, uint32_t before = 0);

}  // namespace gabion::partitions
