#include "tests/engine/formats/qcow2/mutations.h"

#include <utility>

#include "engine/base/check.h"
#include "engine/base/units.h"

namespace gabion::qcow2::testing {
namespace {

using Change = std::function<void(ImageFile&)>;
using enum Verdict;

Change Set32(std::size_t at, uint32_t value) {
  return [=](ImageFile& file) { Put32(file, at, value); };
}
Change Set64(std::size_t at, uint64_t value) {
  return [=](ImageFile& file) { Put64(file, at, value); };
}
Change Both(Change a, Change b) {
  return [a = std::move(a), b = std::move(b)](ImageFile& file) {
    a(file);
    b(file);
  };
}
Change Type(uint8_t type) {
  return [=](ImageFile& file) { file.at(kCompressionTypeField) = static_cast<std::byte>(type); };
}
Change Extension(uint32_t type, std::string data) {
  return [=](ImageFile& file) { AddExtension(file, type, data); };
}
Change Backing(std::size_t at, std::string name) {
  return [=](ImageFile& file) { AddBackingFile(file, at, name); };
}
// A field of the bitmaps extension; -4 is its length.
Change Bitmaps32(int at, uint32_t value) {
  return [=](ImageFile& file) {
    const std::size_t data = FindExtension(file, kExtensionBitmaps);
    CHECK(data != 0);
    Put32(file, data + static_cast<std::size_t>(at), value);
  };
}
Change Bitmaps64(int at, uint64_t value) {
  return Both(Bitmaps32(at, static_cast<uint32_t>(value >> 32)),
              Bitmaps32(at + 4, static_cast<uint32_t>(value)));
}
// Incompatible features are the whole field here; autoclear has the bit of bitmaps set.
Change Incompatible(uint64_t bits) { return Set64(kIncompatibleField, bits); }

constexpr uint64_t kBeyond = uint64_t{1} << 40;  // the end of any test's file

std::vector<Mutation> Fields() {
  return {
      {"Nothing", [](ImageFile&) {}, kAccept, kAccept, ""},
      {"WrongMagic", Set32(kMagicField, 0x514649fa), kReject, kReject, "magic"},
      {"Version0", Set32(kVersionField, 0), kReject, kReject, "version"},
      {"Version1", Set32(kVersionField, 1), kReject, kReject, "version"},
      {"Version4", Set32(kVersionField, 4), kReject, kReject, "version"},
      {"ClusterBits8", Set32(kClusterBitsField, 8), kReject, kReject, "cluster_bits"},
      {"ClusterBits22", Set32(kClusterBitsField, 22), kReject, kReject, "cluster_bits"},
      {"ClusterBitsMax", Set32(kClusterBitsField, ~0u), kReject, kReject, "cluster_bits"},
      {"HeaderLength0", Set32(kHeaderLengthField, 0), kReject, kReject, "header_length"},
      {"HeaderLength96", Set32(kHeaderLengthField, 96), kReject, kReject, "header_length"},
      {"HeaderLength105", Set32(kHeaderLengthField, 105), kReject, kReject, "header_length"},
      {"HeaderLengthAboveCluster", Set32(kHeaderLengthField, 65544), kReject, kReject,
       "header_length"},
      {"HeaderLengthMax", Set32(kHeaderLengthField, 0xfffffff8), kReject, kReject, "header_length"},
      {"RefcountOrder7", Set32(kRefcountOrderField, 7), kReject, kReject, "refcount_order"},
      {"RefcountOrderMax", Set32(kRefcountOrderField, ~0u), kReject, kReject, "refcount_order"},
      // The wrong width shows only in refcounts, which the header does not have.
      {"RefcountOrder6", Set32(kRefcountOrderField, 6), kAccept, kAccept, ""},
      {"Crypt1", Set32(kCryptMethodField, 1), kLack, kLack, "crypt_method"},
      {"Crypt2", Set32(kCryptMethodField, 2), kLack, kLack, "crypt_method"},
      {"Crypt3", Set32(kCryptMethodField, 3), kReject, kReject, "crypt_method"},
      {"Size1000", Set64(kSizeField, 1000), kWarn, kWarn, "size"},
      {"Size2To63", Set64(kSizeField, uint64_t{1} << 63), kReject, kReject, "size"},
      {"SizeMax", Set64(kSizeField, ~uint64_t{0}), kReject, kReject, "size"},
      {"Size0", Set64(kSizeField, 0), kAccept, kAccept, "", true},
  };
}

std::vector<Mutation> Tables() {
  return {
      {"TableClusters0", Set32(kRefcountTableClustersField, 0), kReject, kReject,
       "refcount_table_clusters"},
      {"TableClusters129", Set32(kRefcountTableClustersField, 129), kReject, kReject,
       "refcount_table_clusters"},
      {"TableClusters2To20", Set32(kRefcountTableClustersField, 1 << 20), kReject, kReject,
       "refcount_table_clusters"},
      {"TableUnaligned", Set64(kRefcountTableOffsetField, 65536 + 512), kReject, kReject,
       "refcount_table_offset"},
      {"TableFar", Set64(kRefcountTableOffsetField, 0x7fffffffffff0000), kReject, kReject,
       "refcount_table_offset"},
      {"TableLast", Set64(kRefcountTableOffsetField, 0xffffffffffff0000), kReject, kReject,
       "refcount_table_offset"},
      {"TableAtHeader", Set64(kRefcountTableOffsetField, 0), kReject, kReject,
       "refcount_table_offset"},
      {"TableBeyondFile", Set64(kRefcountTableOffsetField, kBeyond), kWarn, kReject,
       "refcount_table_offset"},
      {"L1Size0", Set32(kL1SizeField, 0), kReject, kReject, "l1_size"},
      {"L1TooSmall", Set64(kSizeField, kGiB), kReject, kReject, "l1_size"},
      {"L1TooLarge", Set32(kL1SizeField, (1 << 22) + 1), kReject, kReject, "l1_size"},
      {"L1SizeMax", Set32(kL1SizeField, ~0u), kReject, kReject, "l1_size"},
      {"L1LongerThanFile", Set32(kL1SizeField, 1 << 22), kReject, kReject, "l1_table_offset"},
      {"L1Unaligned", Set64(kL1OffsetField, 196608 + 8), kReject, kReject, "l1_table_offset"},
      {"L1Far", Set64(kL1OffsetField, 0x7fffffffffff0000), kReject, kReject, "l1_table_offset"},
      {"L1BeyondFile", Set64(kL1OffsetField, kBeyond), kReject, kReject, "l1_table_offset"},
      {"L1AtHeader", Set64(kL1OffsetField, 0), kReject, kReject, "l1_table_offset"},
      {"L1AtRefcountTable", Set64(kL1OffsetField, 65536), kWarn, kReject, "l1_table_offset"},
      {"Snapshots65537", Set32(kSnapshotCountField, 65537), kReject, kReject, "nb_snapshots"},
      {"SnapshotsMax", Set32(kSnapshotCountField, ~0u), kReject, kReject, "nb_snapshots"},
      {"SnapshotsUnaligned", Set64(kSnapshotsOffsetField, 4096), kReject, kReject,
       "snapshots_offset"},
      {"SnapshotsAtHeader", Set64(kSnapshotsOffsetField, 0), kReject, kReject, "snapshots_offset"},
      {"SnapshotsBeyondFile", Set64(kSnapshotsOffsetField, kBeyond), kWarn, kReject,
       "snapshots_offset"},
      {"SnapshotsAtRefcountTable", Set64(kSnapshotsOffsetField, 65536), kWarn, kReject,
       "snapshots_offset"},
  };
}

std::vector<Mutation> Features() {
  const uint64_t bitmaps = kAutoclearBitmaps;
  return {
      {"IncompatibleBit20", Incompatible(1 << 20), kLack, kLack, "bit 20"},
      {"IncompatibleBit63", Incompatible(uint64_t{1} << 63), kLack, kLack, "bit 63"},
      {"CompatibleBits", Set64(kCompatibleField, ~uint64_t{0}), kAccept, kAccept, ""},
      {"AutoclearBits", Set64(kAutoclearField, ~uint64_t{2}), kAccept, kAccept, ""},
      {"Corrupt", Incompatible(kIncompatibleCorrupt), kWarn, kReject, "corrupt"},
      {"Dirty", Incompatible(kIncompatibleDirty), kWarn, kWarn, "dirty"},
      {"DataFileWithoutName", Incompatible(kIncompatibleDataFile), kReject, kReject,
       "external data file"},
      {"DataFile",
       Both(Extension(kExtensionDataFile, "data.raw"), Incompatible(kIncompatibleDataFile)),
       kAccept, kAccept, "", true},
      {"DataFileNameOnly", Extension(kExtensionDataFile, "data.raw"), kWarn, kWarn,
       "external data file"},
      {"CompressionBitOnly", Incompatible(kIncompatibleCompression), kReject, kReject,
       "compression_type"},
      {"CompressionTypeOnly", Type(1), kReject, kReject, "compression_type"},
      {"CompressionType9", Both(Type(9), Incompatible(kIncompatibleCompression)), kLack, kLack,
       "compression_type"},
      {"Zstd", Both(Type(1), Incompatible(kIncompatibleCompression)), kAccept, kAccept, ""},
      // Looks like any other image; only its L2 tables can show that the bit is wrong.
      {"ExtendedL2", Incompatible(kIncompatibleExtendedL2), kAccept, kAccept, ""},
      {"RawDataWithoutDataFile", Set64(kAutoclearField, bitmaps | kAutoclearRawDataFile), kReject,
       kReject, "raw external data"},
      {"BitmapsNotValid", Set64(kAutoclearField, 0), kWarn, kWarn, "bitmaps are inconsistent"},
  };
}

std::vector<Mutation> Names() {
  return {
      {"BackingBeyondCluster", Backing(65537, "base"), kReject, kReject, "backing_file_offset"},
      {"BackingMax", Set64(kBackingOffsetField, ~uint64_t{0}), kReject, kReject,
       "backing_file_offset"},
      {"BackingInHeader", Set64(kBackingOffsetField, 64), kReject, kReject, "backing_file_offset"},
      {"BackingSize1024", Backing(8192, std::string(1024, 'b')), kReject, kReject,
       "backing_file_size"},
      {"BackingSizeMax", Both(Backing(8192, "base"), Set32(kBackingSizeField, ~0u)), kReject,
       kReject, "backing_file_size"},
      {"BackingCrossesCluster", Backing(65534, "base"), kReject, kReject, "backing_file_size"},
      {"BackingWithZero", Backing(8192, std::string("a\0b", 3)), kReject, kReject, "zero byte"},
      {"BackingEmpty", Backing(8192, ""), kWarn, kWarn, "name is empty"},
      {"BackingFormatLong", Extension(kExtensionBackingFormat, "0123456789abcdef"), kReject,
       kReject, "backing file format"},
      {"ExtensionTooLong", Both(Extension(0x12345678, ""), Set32(kHeaderLengthV3 + 4, 0x7fffffff)),
       kReject, kReject, "0x12345678"},
      {"ExtensionMax", Both(Extension(0x12345678, ""), Set32(kHeaderLengthV3 + 4, ~0u)), kReject,
       kReject, "0x12345678"},
      {"ExtensionUnknown", Extension(0x12345678, "abc"), kAccept, kAccept, ""},
      {"ExtensionTwice", Both(Extension(0x12345678, "a"), Extension(0x12345678, "b")), kReject,
       kReject, "twice"},
      {"BitmapsTwice", Extension(kExtensionBitmaps, std::string(24, '\0')), kReject, kReject,
       "bitmaps"},
      {"EncryptionHeader", Extension(kExtensionCrypto, std::string(16, '\0')), kLack, kLack,
       "encryption"},
  };
}

std::vector<Mutation> Bitmaps() {
  return {
      {"BitmapsLength16", Bitmaps32(-4, 16), kReject, kReject, "bitmaps extension"},
      {"Bitmaps0", Bitmaps32(0, 0), kReject, kReject, "nb_bitmaps"},
      {"Bitmaps65536", Bitmaps32(0, 65536), kReject, kReject, "nb_bitmaps"},
      {"BitmapsReserved", Bitmaps32(4, 1), kReject, kReject, "reserved"},
      {"BitmapsUnaligned", Bitmaps64(16, 4096), kReject, kReject, "bitmap_directory_offset"},
      {"BitmapsBeyondFile", Bitmaps64(16, kBeyond), kReject, kReject, "bitmap directory"},
      {"BitmapsHuge", Bitmaps64(8, kBeyond), kReject, kReject, "bitmap_directory_size"},
      {"BitmapsSizeMax", Bitmaps64(8, ~uint64_t{0}), kReject, kReject, "bitmap_directory_size"},
      {"Bitmaps8Bytes", Bitmaps64(8, 8), kReject, kReject, "bitmap_directory_size"},
      // Nobody vouches for them, so they are no reason not to open the disk.
      {"BitmapsReservedNotValid", Both(Bitmaps32(4, 1), Set64(kAutoclearField, 0)), kWarn, kWarn,
       "cannot be listed"},
  };
}

}  // namespace

const std::vector<Mutation>& Mutations() {
  static const std::vector<Mutation> all = [] {
    std::vector<Mutation> found;
    for (const auto& part : {Fields(), Tables(), Features(), Names(), Bitmaps()}) {
      found.insert(found.end(), part.begin(), part.end());
    }
    return found;
  }();
  return all;
}

}  // namespace gabion::qcow2::testing
