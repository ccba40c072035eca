// The L2 tables of an image, each once, in batches of bounded size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace gabion::qcow2 {

// An L2 table and who refers to it.
struct L2Table {
  static constexpr uint32_t kInactive = std::numeric_limits<uint32_t>::max();
  uint64_t offset = 0;            // bytes from the start of the file
  uint32_t references = 0;        // from entries of L1 tables; stops at the largest number
  uint32_t l1_index = kInactive;  // the first entry of the active L1 table, if there is one
};

// Collects the tables with the lowest offsets from `from` on, at most `capacity` at a time, out of
// any number of references in any order. Owned and used by one walk.
class L2Batch {
 public:
  static constexpr std::size_t kDefaultCapacity = std::size_t{1} << 16;

  L2Batch(uint64_t from, std::size_t capacity) : from_(from), capacity_(capacity) {}

  void Add(const L2Table& table);
  // Sorts; the tables of this batch, by offset. No Add() afterwards.
  const std::vector<L2Table>& Finish();
  // Where the next batch starts; the largest number if this is the last one.
  uint64_t end() const { return end_; }

 private:
  void Merge();

  const uint64_t from_;
  const std::size_t capacity_;
  uint64_t end_ = std::numeric_limits<uint64_t>::max();
  std::vector<L2Table> tables_;
};

}  // namespace gabion::qcow2
