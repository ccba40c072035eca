#include "tests/sim/content.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"

namespace gabion::sim {
namespace {

// A word is a one-to-one function of (salt, operation, position): Mix() can be undone.
constexpr int kIndexBits = 40;  // disks up to 8 TiB
constexpr uint64_t kWord = sizeof(uint64_t);

constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

constexpr uint64_t Unmix(uint64_t x) {
  x = (x ^ (x >> 31) ^ (x >> 62)) * 0x319642b2d24d8ec3u;
  x = (x ^ (x >> 27) ^ (x >> 54)) * 0x96de1b173f119089u;
  return x ^ (x >> 30) ^ (x >> 60);
}
static_assert(Unmix(Mix(0x123456789abcdef0u)) == 0x123456789abcdef0u);

uint64_t Load(const std::byte* from) {
  uint64_t word;
  std::memcpy(&word, from, kWord);
  return word;
}

}  // namespace

uint64_t Content::Word(OpId op, uint64_t index) const {
  return Mix(salt_ ^ (op << kIndexBits | index));
}

std::byte Content::ByteAt(OpId op, uint64_t at) const {
  return static_cast<std::byte>(Word(op, at / kWord) >> (8 * (at % kWord)));
}

void Content::Fill(OpId op, uint64_t offset, MutableBytes dst) const {
  for (std::size_t i = 0; i < dst.size();) {
    const uint64_t at = offset + i;
    if (at % kWord == 0 && dst.size() - i >= kWord) {
      const uint64_t word = Word(op, at / kWord);
      std::memcpy(dst.data() + i, &word, kWord);
      i += kWord;
    } else {
      dst[i++] = ByteAt(op, at);
    }
  }
}

bool Content::Matches(OpId op, uint64_t offset, Bytes bytes) const {
  for (std::size_t i = 0; i < bytes.size();) {
    const uint64_t at = offset + i;
    if (at % kWord == 0 && bytes.size() - i >= kWord) {
      if (Load(bytes.data() + i) != Word(op, at / kWord)) return false;
      i += kWord;
    } else {
      if (bytes[i++] != ByteAt(op, at)) return false;
    }
  }
  return true;
}

std::string Content::Trace(uint64_t offset, Bytes bytes, OpId operations) const {
  if (IsZero(bytes)) return "zeros";
  const uint64_t first = RoundUp(offset, kWord);
  for (uint64_t at = first; at + kWord <= offset + bytes.size(); at += kWord) {
    const uint64_t source = Unmix(Load(bytes.data() + (at - offset))) ^ salt_;
    const OpId op = source >> kIndexBits;
    if (op >= operations) continue;
    const uint64_t from = (source & ((uint64_t{1} << kIndexBits) - 1)) * kWord;
    return absl::StrCat("at ", at, " what operation ", op, " wrote at ", from);
  }
  return "bytes that no operation wrote as a whole word";
}

bool IsZero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace gabion::sim
