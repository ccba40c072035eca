#include "engine/formats/qcow2/geometry.h"

#include "engine/base/bytes.h"
#include "engine/base/check.h"

namespace gabion::qcow2 {
namespace {

// A refcount of less than eight bits: the byte that holds it, and where in it.
struct PackedPlace {
  PackedPlace(uint64_t index, uint32_t order)
      : byte(index >> (3 - order)),
        shift(static_cast<uint32_t>(index & ((8u >> order) - 1)) << order),
        mask((1u << (1u << order)) - 1) {}

  uint64_t byte;
  uint32_t shift;
  uint32_t mask;
};

}  // namespace

uint64_t LoadRefcount(const std::byte* block, uint64_t index, uint32_t order) {
  switch (order) {
    case 3:
      return std::to_integer<uint64_t>(block[index]);
    case 4:
      return LoadBe16(block + index * 2);
    case 5:
      return LoadBe32(block + index * 4);
    case 6:
      return LoadBe64(block + index * 8);
    default: {
      CHECK_LT(order, 3u);
      const PackedPlace place(index, order);
      return (std::to_integer<uint32_t>(block[place.byte]) >> place.shift) & place.mask;
    }
  }
}

void StoreRefcount(std::byte* block, uint64_t index, uint32_t order, uint64_t value) {
  CHECK(order == 6 || value >> (1u << order) == 0);
  switch (order) {
    case 3:
      block[index] = static_cast<std::byte>(value);
      return;
    case 4:
      return StoreBe16(block + index * 2, static_cast<uint16_t>(value));
    case 5:
      return StoreBe32(block + index * 4, static_cast<uint32_t>(value));
    case 6:
      return StoreBe64(block + index * 8, value);
    default: {
      CHECK_LT(order, 3u);
      const PackedPlace place(index, order);
      const uint32_t others =
          std::to_integer<uint32_t>(block[place.byte]) & ~(place.mask << place.shift);
      block[place.byte] =
          static_cast<std::byte>(others | static_cast<uint32_t>(value) << place.shift);
    }
  }
}

}  // namespace gabion::qcow2
