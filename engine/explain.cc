#include "engine/explain.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/inspect.h"

namespace gabion::engine {
namespace {

using Effect = ExplainedStep::Effect;
using LayerState = ExplainedLayer::State;

constexpr std::size_t kExtentsPerStep = 256;

// The first extent of `range`; whatever there was of it is cut to that.
Task<absl::StatusOr<block::Extent>> FirstExtent(block::Node& node, ByteRange& range) {
  CO_ASSIGN_OR_RETURN(const block::ExtentList extents, co_await node.BlockStatus(range, 1));
  CHECK(!extents.empty());
  range.length = extents.front().range.length;
  co_return extents.front();
}

bool SameKind(const block::Extent& a, const block::Extent& b) {
  return a.kind == b.kind && a.layer == b.layer && a.compressed == b.compressed &&
         a.apart == b.apart;
}

LayerState StateOf(block::ExtentKind kind) {
  switch (kind) {
    case block::ExtentKind::kData:
      return LayerState::kData;
    case block::ExtentKind::kZeroAllocated:
      return LayerState::kZeroAllocated;
    case block::ExtentKind::kZero:
      return LayerState::kZero;
    case block::ExtentKind::kUnallocated:
      break;
  }
  return LayerState::kPasses;
}

// The layers of the chain, from the top, until one decides; `range` is cut to what is alike in all.
Task<absl::StatusOr<std::vector<ExplainedLayer>>> ExplainLayers(Image* image, ByteRange& range) {
  std::vector<ExplainedLayer> layers;
  uint32_t depth = 0;
  for (; image != nullptr; image = image->backing()) {
    ExplainedLayer& layer = layers.emplace_back();
    layer.depth = ++depth;
    layer.image = image->spec().name;
    layer.file_name = image->spec().file_name;
    const ByteCount size = image->root().limits().size;
    if (range.offset.value >= size.value) {
      layer.state = LayerState::kPastEnd;
      break;
    }
    range = Intersect(range, ByteRange{{}, size});
    CO_ASSIGN_OR_RETURN(const block::Extent extent, co_await FirstExtent(image->root(), range));
    if (extent.layer == 1) {
      layer.state = StateOf(extent.kind);
      layer.compressed = extent.compressed;
      // A hole has a place in the file, but no bytes there.
      const bool has_bytes = extent.kind == block::ExtentKind::kData ||
                             extent.kind == block::ExtentKind::kZeroAllocated;
      if (has_bytes && extent.host_offset != block::kNoHostOffset) {
        layer.host_offset = extent.host_offset;
      }
      break;
    }
    layer.state = image->backing() != nullptr ? LayerState::kPasses : LayerState::kNothing;
  }
  co_return layers;
}

// One level of an export: what it shows, and where that comes from. `range` goes down with it.
Task<absl::Status> ExplainLevel(const block::FilterNode& level, bool keeps_changes,
                                ExplainedStep& step, ByteRange& range) {
  // Asking for status changes nothing.
  auto& node = const_cast<block::FilterNode&>(level);
  std::optional<ByteRange> below = level.OriginOf(range);
  if (below.has_value()) range.length = below->length;
  ByteRange shown = range;
  CO_ASSIGN_OR_RETURN(step.shown, co_await FirstExtent(node, shown));
  range.length = shown.length;
  if (!below.has_value()) {
    step.effect = keeps_changes ? Effect::kKept : Effect::kMadeUp;
    co_return absl::OkStatus();
  }
  below->length = range.length;
  step.below = below->offset;
  auto& child = const_cast<block::Node&>(level.child());
  CO_ASSIGN_OR_RETURN(const block::Extent under, co_await FirstExtent(child, *below));
  step.shown.range.length = below->length;
  if (!SameKind(step.shown, under)) {
    step.effect = Effect::kForced;
  } else if (below->offset != range.offset) {
    step.effect = Effect::kShifted;
  }
  range = *below;
  co_return absl::OkStatus();
}

bool KeepsChanges(const FilterStack::Level& level) {
  return level.entry != nullptr && std::holds_alternative<CowEntry>(level.entry->options);
}

// The version's tail node and the levels of its stack.
std::vector<ExplainedStep> PlanSteps(const nbd::ExportVersion& version, const FilterStack& stack,
                                     std::vector<FilterStack::Level>& levels) {
  std::vector<ExplainedStep> steps;
  if (version.tail != nullptr) {
    steps.emplace_back().what = ExplainedStep::What::kTail;
    levels.push_back({version.tail.get(), nullptr, nullptr});
  }
  for (const FilterStack::Level& level : stack.Levels()) {
    ExplainedStep& step = steps.emplace_back();
    levels.push_back(level);
    step.what =
        level.entry == nullptr ? ExplainedStep::What::kAligner : ExplainedStep::What::kFilter;
    if (level.entry == nullptr) continue;
    step.entry_id = level.entry->id;
    step.kind = level.entry->options.index();
  }
  return steps;
}

// Merges the units that `range` lies in, or consists of.
Task<absl::StatusOr<ExplainedUnits>> ExplainUnits(const nbd::ExportVersion& version,
                                                  ByteRange range) {
  block::Node& root = *version.root;
  ExplainedUnits told;
  told.granule = version.info.block_sizes.minimum;
  told.units = AlignOutward(range, ByteCount{told.granule}, version.info.traits.size);
  const ByteRange content = Intersect(told.units, ByteRange{{}, root.limits().content_size()});
  MapMerger merger(told.units.offset, told.granule, root.limits().layers);
  ByteRange left = content;
  while (!left.empty()) {
    CO_ASSIGN_OR_RETURN(const block::ExtentList extents,
                        co_await root.BlockStatus(left, kExtentsPerStep));
    merger.Add(extents);
    const ByteOffset next = extents.back().range.end();
    left = {next, left.end() - next};
  }
  if (content != told.units) merger.AddPadding(told.units.length - content.length);
  merger.Finish();
  const std::vector<MapExtent> runs = merger.Take(1);
  CHECK(!runs.empty());
  // The units were alike when the levels were asked; a write since then may have left only the
  // first ones so.
  told.units = Intersect(told.units, runs.front().range);
  told.merged = told.units != Intersect(told.units, range);
  told.has_padding = told.units.end() > content.end();
  told.zero = runs.front().zero;
  told.hole = !runs.front().allocated;
  told.depth = runs.front().min_depth;
  told.maximum_depth = runs.front().max_depth;
  co_return told;
}

// The bytes of `range` that are told of in the same way: the rest of a unit, or whole units.
ByteRange OneKindOfUnit(ByteRange range, uint64_t granule) {
  const uint64_t unit_end = RoundDown(range.offset.value, granule) + granule;
  const bool begins_unit = IsMultiple(range.offset.value, granule);
  if (!begins_unit || range.length.value < granule) {
    range.length.value = std::min(range.length.value, unit_end - range.offset.value);
  } else {
    range.length.value = RoundDown(range.length.value, granule);
  }
  return range;
}

}  // namespace

Task<absl::StatusOr<Explanation>> ExplainImage(Image& image, ByteRange range) {
  Explanation explanation;
  CO_ASSIGN_OR_RETURN(explanation.layers, co_await ExplainLayers(&image, range));
  explanation.range = range;
  co_return explanation;
}

Task<absl::StatusOr<Explanation>> ExplainExport(const nbd::ExportVersion& version,
                                                const FilterStack& stack, Image& image,
                                                ByteRange range) {
  const ByteOffset begin = range.offset;
  Explanation explanation;
  std::vector<FilterStack::Level> levels;
  explanation.steps = PlanSteps(version, stack, levels);
  Image* holder = &image;
  for (std::size_t i = 0; i < levels.size(); ++i) {
    ExplainedStep& step = explanation.steps[i];
    if (levels[i].node == nullptr) {
      step.effect = Effect::kBypassed;
      step.below = range.offset;
      continue;
    }
    CO_RETURN_IF_ERROR(
        co_await ExplainLevel(*levels[i].node, KeepsChanges(levels[i]), step, range));
    if (step.below.has_value()) continue;
    holder = step.effect == Effect::kKept ? levels[i].keeps_in : nullptr;
    explanation.steps.resize(i + 1);
    break;
  }
  if (holder != nullptr) {
    CO_ASSIGN_OR_RETURN(explanation.layers, co_await ExplainLayers(holder, range));
  }
  explanation.range =
      OneKindOfUnit(ByteRange{begin, range.length}, version.info.block_sizes.minimum);
  CO_ASSIGN_OR_RETURN(explanation.told, co_await ExplainUnits(version, explanation.range));
  explanation.range = Intersect(explanation.range, explanation.told->units);
  co_return explanation;
}

}  // namespace gabion::engine
