// The qcow2 format as it lies in a file: constants of QEMU's docs/interop/qcow2.rst. All fields are
// big-endian.
#pragma once

#include <cstdint>

#include "engine/base/units.h"

namespace gabion::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"

// Offsets of the header's fields.
inline constexpr std::size_t kMagicField = 0;
inline constexpr std::size_t kVersionField = 4;
inline constexpr std::size_t kBackingOffsetField = 8;
inline constexpr std::size_t kBackingSizeField = 16;
inline constexpr std::size_t kClusterBitsField = 20;
inline constexpr std::size_t kSizeField = 24;
inline constexpr std::size_t kCryptMethodField = 32;
inline constexpr std::size_t kL1SizeField = 36;
inline constexpr std::size_t kL1OffsetField = 40;
inline constexpr std::size_t kRefcountTableOffsetField = 48;
inline constexpr std::size_t kRefcountTableClustersField = 56;
inline constexpr std::size_t kSnapshotCountField = 60;
inline constexpr std::size_t kSnapshotsOffsetField = 64;
inline constexpr std::size_t kHeaderLengthV2 = 72;  // a version 2 header ends here
inline constexpr std::size_t kIncompatibleField = 72;
inline constexpr std::size_t kCompatibleField = 80;
inline constexpr std::size_t kAutoclearField = 88;
inline constexpr std::size_t kRefcountOrderField = 96;
inline constexpr std::size_t kHeaderLengthField = 100;
inline constexpr std::size_t kMinHeaderLengthV3 = 104;
inline constexpr std::size_t kCompressionTypeField = 104;
inline constexpr std::size_t kHeaderLengthV3 = 112;  // what Gabion and QEMU write

// Feature bits.
inline constexpr uint64_t kIncompatibleDirty = uint64_t{1} << 0;
inline constexpr uint64_t kIncompatibleCorrupt = uint64_t{1} << 1;
inline constexpr uint64_t kIncompatibleDataFile = uint64_t{1} << 2;
inline constexpr uint64_t kIncompatibleCompression = uint64_t{1} << 3;
inline constexpr uint64_t kIncompatibleExtendedL2 = uint64_t{1} << 4;
inline constexpr uint64_t kIncompatibleKnown = 0x1f;
inline constexpr uint64_t kCompatibleLazyRefcounts = uint64_t{1} << 0;
inline constexpr uint64_t kAutoclearBitmaps = uint64_t{1} << 0;
inline constexpr uint64_t kAutoclearRawDataFile = uint64_t{1} << 1;

// Header extensions.
inline constexpr uint32_t kExtensionEnd = 0;
inline constexpr uint32_t kExtensionBackingFormat = 0xe2792aca;
inline constexpr uint32_t kExtensionFeatureNames = 0x6803f857;
inline constexpr uint32_t kExtensionBitmaps = 0x23852875;
inline constexpr uint32_t kExtensionCrypto = 0x0537be77;
inline constexpr uint32_t kExtensionDataFile = 0x44415441;

// L1 and L2 entries.
inline constexpr uint64_t kCopied = uint64_t{1} << 63;      // refcount is exactly 1
inline constexpr uint64_t kCompressed = uint64_t{1} << 62;  // L2 only
inline constexpr uint64_t kZeroFlag = uint64_t{1} << 0;     // L2 only, version 3, no subclusters
inline constexpr uint64_t kOffsetMask = 0x00fffffffffffe00;
inline constexpr uint64_t kL1Reserved = 0x7f000000000001ff;
inline constexpr uint64_t kL2Reserved = 0x3f000000000001fe;  // of entries that are not compressed
inline constexpr uint64_t kRefcountTableReserved = 0x1ff;
inline constexpr uint32_t kSubclusters = 32;  // of a cluster, with extended L2 entries

// Limits: of the format, or, where it has none, QEMU's.
inline constexpr uint32_t kMinClusterBits = 9;
inline constexpr uint32_t kMaxClusterBits = 21;
inline constexpr uint32_t kMinClusterBitsExtended = 14;
inline constexpr uint64_t kMaxL1Bytes = 32 * kMiB;
inline constexpr uint64_t kMaxRefcountTableBytes = 8 * kMiB;
inline constexpr uint64_t kMaxHostOffset = uint64_t{1} << 56;
inline constexpr uint32_t kMaxRefcountOrder = 6;
inline constexpr uint32_t kMaxSnapshots = 65536;
inline constexpr uint64_t kMaxSnapshotTableBytes = 64 * kMiB;
inline constexpr uint32_t kMaxSnapshotExtraBytes = 1024;
inline constexpr uint32_t kMaxBackingNameBytes = 1023;
inline constexpr uint64_t kMaxVirtualSize = uint64_t{1} << 61;

}  // namespace gabion::qcow2
