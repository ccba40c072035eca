#include "engine/export_version.h"

#include <utility>
#include <variant>

#include "engine/base/reason.h"
#include "engine/block/block_sizes.h"
#include "engine/block/tail_node.h"
#include "engine/nbd/protocol/meta_context.h"

namespace gabion::engine {
namespace {

nbd::ExportInfo InfoOf(const ExportSpec& spec, const block::EffectiveBlockSizes& effective,
                       const block::Limits& limits) {
  nbd::ExportInfo info;
  info.name = spec.nbd_name;
  info.description = spec.description;
  info.traits.size = effective.export_size;
  info.traits.read_only = spec.read_only || !limits.writable;
  const auto shown = [&](block::Feature feature) { return (limits.hidden & Bit(feature)) == 0; };
  info.traits.multi_conn = shown(block::Feature::kMultiConn);
  info.traits.can_trim = shown(block::Feature::kTrim);
  info.traits.can_zero = shown(block::Feature::kZero);
  info.traits.can_fast_zero = limits.fast_zero && shown(block::Feature::kFastZero);
  info.traits.can_fua = shown(block::Feature::kFua);
  info.traits.can_cache = shown(block::Feature::kCache);
  info.traits.shows_holes = shown(block::Feature::kHoles);
  info.block_sizes.minimum = effective.minimum.bytes;
  info.block_sizes.preferred = effective.preferred.bytes;
  info.block_sizes.maximum_payload = effective.maximum_payload.bytes;
  info.meta_contexts = {std::string(nbd::kBaseAllocation)};
  if (spec.allocation_depth) {
    info.meta_contexts.emplace_back(nbd::kAllocationDepth);
    info.meta_contexts.emplace_back(nbd::kAllocationDepthMax);
  }
  info.refuse_silent_clients = effective.silent_clients == block::SilentClients::kRefuse;
  return info;
}

}  // namespace

absl::StatusOr<std::unique_ptr<nbd::ExportVersion>> MakeExportVersion(const ExportSpec& spec,
                                                                      block::Node& disk,
                                                                      uint64_t version_id,
                                                                      runtime::ReadyQueue& ready) {
  // The sizes follow from what is needed below, not from the node that hides it.
  const block::Limits& limits = disk.limits();
  block::Limits needed = limits;
  if (needed.emulated_alignment > needed.alignment) {
    needed.alignment = needed.emulated_alignment;
    needed.alignment_from = needed.emulated_from;
  }
  const auto resolved = block::ResolveBlockSizes(spec.block_sizes, needed, spec.image.name);
  if (const auto* error = std::get_if<block::BlockSizeError>(&resolved)) {
    Reason reason{std::string(error->reason), error->metadata};
    reason.metadata.emplace_back("field", "export.block_sizes." + error->field);
    return WithReason(absl::Status(error->code, error->message), reason);
  }
  auto version = std::make_unique<nbd::ExportVersion>();
  version->id = version_id;
  version->generation = spec.generation;
  version->effective = std::get<block::EffectiveBlockSizes>(resolved);
  for (block::EffectiveSize* size : {&version->effective.minimum, &version->effective.preferred,
                                     &version->effective.maximum_payload}) {
    if (size->origin == block::SizeOrigin::kPolicy) size->determined_by = spec.name;
  }
  version->info = InfoOf(spec, version->effective, limits);
  version->disk_writable = limits.writable;
  version->root = &disk;
  if (version->effective.tail_node.has_value()) {
    version->tail = std::make_unique<block::TailNode>(
        disk, *version->effective.tail_node, ByteCount{version->effective.minimum.bytes}, ready);
    version->root = version->tail.get();
  }
  return version;
}

}  // namespace gabion::engine
