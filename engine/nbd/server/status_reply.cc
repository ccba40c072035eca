#include "engine/nbd/server/status_reply.h"

#include <algorithm>

#include "engine/base/align.h"
#include "engine/base/check.h"

namespace gabion::nbd {

using block::MergeOperator;

StatusPlan::StatusPlan(const StatusRequest& request, const StatusOptions& options,
                       std::span<const MergeOperator> contexts)
    : request_(request), options_(options) {
  CHECK(!request.range.empty());
  CHECK(FitsWithin(request.range, options.export_size));
  CHECK(IsMultiple(options.export_size.value, options.granule.value));
  CHECK_LE(options.content_size.value, options.export_size.value);
  CHECK_GE(options.most_descriptors, 1u);
  const ByteRange units = AlignOutward(request.range, options.granule, options.export_size);
  begin_ = units.offset.value;
  end_ = units.end().value;
  content_end_ = std::clamp(options.content_size.value, begin_, end_);
  at_ = begin_;
  contexts_.reserve(contexts.size());
  for (const MergeOperator op : contexts) {
    contexts_.push_back(
        {op, block::UnitMerger(op, options.granule, options.layers), false, begin_});
  }
  if (at_ == content_end_) FinishAtoms();
}

bool StatusPlan::HasEnough(const Context& context) const {
  const std::size_t runs = context.merger.runs().size();
  // The last run may still grow: it is complete when the next one has begun.
  return runs > (request_.one ? 1 : options_.most_descriptors);
}

bool StatusPlan::done() const {
  return std::all_of(contexts_.begin(), contexts_.end(),
                     [](const Context& context) { return context.done; });
}

ByteRange StatusPlan::wanted() const {
  for (const Context& context : contexts_) {
    if (context.op != MergeOperator::kAny && !context.done) {
      return Range(at_, content_end_ - at_);
    }
  }
  return Range(at_, 0);
}

void StatusPlan::Feed(const block::ExtentList& atoms) {
  for (const block::Extent& atom : atoms) {
    CHECK_EQ(atom.range.offset.value, at_);
    CHECK_LE(atom.range.end().value, content_end_);
    for (Context& context : contexts_) {
      if (context.op == MergeOperator::kAny || context.done) continue;
      context.merger.Add(atom.range.length, AtomValue(context.op, atom, options_.layers));
    }
    at_ = atom.range.end().value;
    ++atoms_;
    UpdateDone();
  }
  if (at_ == content_end_) FinishAtoms();
}

void StatusPlan::UpdateDone() {
  const bool out_of_budget =
      atoms_ >= options_.most_atoms && at_ - begin_ >= options_.granule.value;
  for (Context& context : contexts_) {
    if (context.op == MergeOperator::kAny) continue;
    if (out_of_budget || HasEnough(context)) context.done = true;
  }
}

void StatusPlan::FinishAtoms() {
  for (Context& context : contexts_) {
    if (context.op == MergeOperator::kAny || context.done) continue;
    context.merger.AddPadding(ByteCount{end_ - content_end_});
    context.done = true;
  }
}

void StatusPlan::FeedUnknown() {
  for (Context& context : contexts_) {
    if (context.op == MergeOperator::kAny || context.done) continue;
    if (context.op == MergeOperator::kAllocation) {
      context.merger.Add(ByteCount{content_end_ - at_}, 0);
      context.merger.AddPadding(ByteCount{end_ - content_end_});
    }
    context.done = true;
  }
  at_ = content_end_;
}

ByteRange StatusPlan::wanted_values(std::size_t index) const {
  const Context& context = contexts_[index];
  return Range(context.fed, context.done ? 0 : end_ - context.fed);
}

void StatusPlan::FeedValue(std::size_t index, ByteCount length, uint64_t value) {
  Context& context = contexts_[index];
  CHECK(context.op == MergeOperator::kAny);
  const uint64_t used = context.done ? 0 : std::min(length.value, end_ - context.fed);
  context.merger.Add(ByteCount{used}, value);
  context.fed += used;
  context.done = context.done || context.fed == end_ || HasEnough(context);
}

bool StatusPlan::has_answer(std::size_t index) const {
  CHECK(done());
  return !contexts_[index].merger.runs().empty();
}

void StatusPlan::AppendDescriptors(std::size_t index, std::vector<StatusDescriptor>& out) const {
  CHECK(done());
  const uint64_t longest = request_.wide ? ~uint64_t{0} : kLongestCompactDescriptor;
  std::size_t room = request_.one ? 1 : options_.most_descriptors;
  const uint64_t offset = request_.range.offset.value;
  uint64_t at = begin_;
  for (const block::StatusRun& run : contexts_[index].merger.runs()) {
    // Cut whole units first and clip to the offset then, so that inner boundaries stay aligned.
    for (uint64_t left = run.length; left > 0 && room > 0; --room) {
      const uint64_t length = std::min(left, longest);
      const uint64_t visible = at + length - std::max(at, offset);
      out.push_back(
          {request_.one ? std::min(visible, request_.range.length.value) : visible, run.status});
      at += length;
      left -= length;
    }
  }
}

}  // namespace gabion::nbd
