#include "tests/sim/model.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "tests/sim/sim_disk.h"

namespace gabion::sim {
namespace {

std::string Name(const ByteRange& range) {
  return absl::StrCat("[", range.offset.value, ", ", range.end().value, ")");
}

const char* Name(Effect effect) {
  switch (effect) {
    case Effect::kData:
      return "write";
    case Effect::kZeros:
      return "zero";
    case Effect::kDiscard:
      return "discard";
  }
  return "?";
}

}  // namespace

Model::Model(const Content& content, uint64_t size, const std::vector<ByteRange>& base)
    : content_(content), size_(size) {
  ops_.push_back(Op{Effect::kData, Range(0, size), 0, 0});
  ops_.push_back(Op{Effect::kZeros, Range(0, size), 0, 0});
  if (size == 0) return;
  segments_[0] = Segment{size, {Candidate{kNothing}}};
  for (const ByteRange& range : base) {
    SplitAt(range.offset.value);
    SplitAt(range.end().value);
    for (auto it = segments_.find(range.offset.value);
         it != segments_.end() && it->first < range.end().value; ++it) {
      it->second.candidates = {Candidate{kBase}};
    }
  }
}

Model::Segments::iterator Model::SegmentOf(uint64_t at) {
  return std::prev(segments_.upper_bound(at));
}

void Model::SplitAt(uint64_t at) {
  if (at >= size_) return;
  const auto it = SegmentOf(at);
  if (it->first == at) return;
  segments_[at] = it->second;
  it->second.end = at;
}

OpId Model::Begin(Effect effect, ByteRange range) {
  const OpId op = ops_.size();
  ops_.push_back(Op{effect, range, ++now_, kNever});
  in_flight_.insert(op);
  if (range.empty()) return op;
  SplitAt(range.offset.value);
  SplitAt(range.end().value);
  for (auto it = segments_.find(range.offset.value);
       it != segments_.end() && it->first < range.end().value; ++it) {
    it->second.candidates.push_back(Candidate{op});
  }
  return op;
}

void Model::Succeed(OpId op, bool durable) {
  CHECK_EQ(in_flight_.erase(op), 1u);
  Op& done = ops_[op];
  done.ended = ++now_;
  if (done.effect == Effect::kDiscard || done.range.empty()) return;
  for (auto it = SegmentOf(done.range.offset.value);
       it != segments_.end() && it->first < done.range.end().value; ++it) {
    for (Candidate& candidate : it->second.candidates) {
      if (ops_[candidate.op].ended >= done.begun) continue;
      candidate.gone = std::min(candidate.gone, now_);
      candidate.buried |= durable;
    }
  }
  Tidy(done.range);
}

void Model::Fail(OpId op) {
  CHECK_EQ(in_flight_.erase(op), 1u);
  ops_[op].ended = ++now_;
}

void Model::Withdraw(OpId op) {
  Fail(op);
  const ByteRange range = ops_[op].range;
  if (range.empty()) return;
  for (auto it = SegmentOf(range.offset.value);
       it != segments_.end() && it->first < range.end().value; ++it) {
    std::erase_if(it->second.candidates, [op](const Candidate& c) { return c.op == op; });
  }
  Tidy(range);
}

void Model::EndFlush(Moment begun) {
  ++now_;
  for (auto& [at, segment] : segments_) {
    for (Candidate& candidate : segment.candidates) {
      if (candidate.gone < begun) candidate.buried = true;
    }
  }
  Tidy(Range(0, size_));
}

Model::Moment Model::BeginLook() {
  looks_.insert(++now_);
  return now_;
}

void Model::Tidy(ByteRange range) {
  if (segments_.empty()) return;
  const Moment oldest = looks_.empty() ? kNever - 1 : *looks_.begin();
  auto it = SegmentOf(range.offset.value);
  if (it != segments_.begin()) --it;
  while (it != segments_.end() && it->first <= range.end().value) {
    std::erase_if(it->second.candidates, [oldest](const Candidate& candidate) {
      return candidate.buried && candidate.gone <= oldest;
    });
    CHECK(!it->second.candidates.empty());
    if (it != segments_.begin()) {
      const auto before = std::prev(it);
      if (before->second.candidates == it->second.candidates) {
        before->second.end = it->second.end;
        it = segments_.erase(it);
        continue;
      }
    }
    ++it;
  }
}

bool Model::Shows(const Candidate& candidate, uint64_t offset, Bytes seen) const {
  if (ops_[candidate.op].effect != Effect::kData) return IsZero(seen);
  return content_.Matches(candidate.op, offset, seen);
}

bool Model::Quiet(const Segment& segment, Moment begun) const {
  return std::all_of(segment.candidates.begin(), segment.candidates.end(),
                     [&](const Candidate& candidate) { return ops_[candidate.op].ended < begun; });
}

Model::Moment Model::Since(const Segment& segment, Moment begun) const {
  return Quiet(segment, begun) ? kNever - 1 : begun;
}

absl::Status Model::CheckRead(Moment begun, ByteRange range, Bytes seen, bool lasting) {
  ++now_;
  uint64_t at = range.offset.value;
  while (at < range.end().value) {
    const uint64_t sector_end = RoundDown(at, SimDisk::kSector) + SimDisk::kSector;
    const uint64_t end = std::min({sector_end, range.end().value, SegmentOf(at)->second.end});
    const Bytes part = seen.subspan(at - range.offset.value, end - at);
    RETURN_IF_ERROR(CheckPart(begun, at, part, lasting));
    at = end;
  }
  Tidy(range);
  return absl::OkStatus();
}

absl::Status Model::CheckPart(Moment begun, uint64_t offset, Bytes seen, bool lasting) {
  const auto found = SegmentOf(offset);
  const std::vector<Candidate>& all = found->second.candidates;
  const bool only = all.size() == 1;
  const Moment since = Since(found->second, begun);
  std::vector<bool> shown;
  bool any = false;
  for (const Candidate& candidate : all) {
    shown.push_back(candidate.gone > since && Shows(candidate, offset, seen));
    any |= shown.back();
  }
  if (!any) return Unexpected(since, offset, seen, found->second);
  if (only || since == begun) return absl::OkStatus();
  SplitAt(offset);
  SplitAt(offset + seen.size());
  std::vector<Candidate>& part = SegmentOf(offset)->second.candidates;
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (shown[i]) continue;
    part[i].gone = std::min(part[i].gone, now_);
    part[i].buried |= lasting;
  }
  return absl::OkStatus();
}

std::string Model::Expected(Moment begun, const Segment& segment) const {
  std::string text;
  for (const Candidate& candidate : segment.candidates) {
    if (candidate.gone <= begun) continue;
    const Op& op = ops_[candidate.op];
    absl::StrAppend(&text, text.empty() ? "" : ", ", Name(op.effect), " ", candidate.op, " of ",
                    Name(op.range), op.ended == kNever ? " (in flight)" : "");
  }
  return text;
}

absl::Status Model::Unexpected(Moment begun, uint64_t offset, Bytes seen,
                               const Segment& segment) const {
  return absl::DataLossError(absl::StrCat("read ", Name(Range(offset, seen.size())), ": found ",
                                          content_.Trace(offset, seen, operations()),
                                          "; may be: ", Expected(begun, segment)));
}

bool Model::MayBeZero(const Segment& segment, Moment begun) const {
  return std::any_of(segment.candidates.begin(), segment.candidates.end(), [&](const auto& c) {
    return c.gone > begun && ops_[c.op].effect != Effect::kData;
  });
}

absl::Status Model::CheckZeros(Moment begun, ByteRange range) {
  SplitAt(range.offset.value);
  SplitAt(range.end().value);
  for (auto it = SegmentOf(range.offset.value);
       it != segments_.end() && it->first < range.end().value; ++it) {
    const Moment since = Since(it->second, begun);
    if (!MayBeZero(it->second, since)) {
      const ByteRange part = Range(it->first, it->second.end - it->first);
      return absl::DataLossError(
          absl::StrCat("status of ", Name(part), ": zeros; may be: ", Expected(since, it->second)));
    }
    if (it->second.candidates.size() == 1 || since == begun) continue;
    for (Candidate& candidate : it->second.candidates) {
      if (ops_[candidate.op].effect == Effect::kData)
        candidate.gone = std::min(candidate.gone, now_);
    }
  }
  Tidy(range);
  return absl::OkStatus();
}

absl::Status Model::CheckExtents(Moment begun, ByteRange range, const block::ExtentList& extents,
                                 std::size_t max_extents, const block::Limits& limits) {
  ++now_;
  const auto wrong = [&](const block::Extent& extent, const char* what) {
    return absl::InternalError(
        absl::StrCat("status of ", Name(range), ": extent ", Name(extent.range), " ", what));
  };
  if (extents.empty())
    return absl::InternalError(absl::StrCat("status of ", Name(range), ": none"));
  if (extents.size() > max_extents) return wrong(extents.back(), "is one too many");
  uint64_t at = range.offset.value;
  for (const block::Extent& extent : extents) {
    if (extent.range.offset.value != at) return wrong(extent, "does not follow");
    if (extent.range.empty()) return wrong(extent, "is empty");
    if (extent.range.length.value > range.end().value - at) return wrong(extent, "is too long");
    if (extent.kind > block::ExtentKind::kUnallocated) return wrong(extent, "is of no kind");
    const bool unallocated = extent.kind == block::ExtentKind::kUnallocated;
    if (unallocated != (extent.layer == 0)) return wrong(extent, "is in the wrong layer");
    if (extent.layer > limits.layers) return wrong(extent, "is in no layer");
    if (block::ReadsZero(extent.kind)) RETURN_IF_ERROR(CheckZeros(begun, extent.range));
    at = extent.range.end().value;
  }
  return absl::OkStatus();
}

void Model::Crash() {
  ++now_;
  for (const OpId op : in_flight_) ops_[op].ended = now_;
  in_flight_.clear();
  looks_.clear();
  for (auto& [at, segment] : segments_) {
    std::erase_if(segment.candidates, [](const Candidate& candidate) { return candidate.buried; });
    CHECK(!segment.candidates.empty());
    for (Candidate& candidate : segment.candidates) candidate.gone = kNever;
  }
  Tidy(Range(0, size_));
}

}  // namespace gabion::sim
