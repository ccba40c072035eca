#include "engine/filter_stack_builder.h"

#include <algorithm>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>

#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/block/aligned_node.h"
#include "engine/block/sparse_memory.h"
#include "engine/export_use.h"
#include "engine/image_format.h"
#include "engine/secret_file.h"

namespace gabion::engine {
namespace {

using filters::Filter;

constexpr uint64_t kLargestDisk = (uint64_t{1} << 63) - 1;

bool IsAddressable(const block::Limits& limits) {
  return limits.alignment.value <= 1 && limits.memory_alignment <= 1;
}

// True if an entry with the one options goes on with what it had with the others.
struct SameKept {
  const FilterOptions& to;

  bool operator()(const CowEntry& from) const {
    const auto* const wanted = std::get_if<CowEntry>(&to);
    return wanted != nullptr && *wanted == from && !from.image.has_value();
  }
  bool operator()(const CacheEntry& from) const {
    const auto* const wanted = std::get_if<CacheEntry>(&to);
    return wanted != nullptr && wanted->in_file == from.in_file &&
           wanted->options.block_size == from.options.block_size &&
           wanted->options.size == from.options.size;
  }
  template <typename Options>
  bool operator()(const Options&) const {
    return false;
  }
};

}  // namespace

absl::Status FilterStack::Builder::Refused(std::string_view field,
                                           const std::string& message) const {
  return WithReason(
      absl::InvalidArgumentError(absl::StrCat("filter '", entry().id, "': ", message)),
      {"FILTER_PARAMETERS_INVALID",
       {{"entry-id", entry().id}, {"index", absl::StrCat(index_)}, {"field", std::string(field)}}});
}

void FilterStack::Builder::MakeAddressable() {
  if (IsAddressable(below().limits())) return;
  auto aligned = std::make_unique<block::AlignedNode>(below(), surroundings_.ready);
  Push(*aligned, std::nullopt);
  stack_.aligned_.push_back(std::move(aligned));
}

Task<absl::StatusOr<ByteRange>> FilterStack::Builder::PartOf(const filters::SliceOptions& options) {
  const ByteCount size = below().limits().size;
  if (options.partition != 0) {
    MakeAddressable();  // for the sake of the table
    absl::StatusOr<ByteRange> part = co_await filters::FindPartition(below(), options.partition);
    if (absl::IsNotFound(part.status()) || absl::IsDataLoss(part.status())) {
      co_return Refused("slice.partition", std::string(part.status().message()));
    }
    co_return part;
  }
  ByteRange part = options.range;
  if (part.offset.value >= size.value) {
    co_return Refused("slice.range.offset_bytes",
                      absl::StrCat("the slice begins at ", part.offset.value,
                                   ", and the disk below it has ", size.value, " bytes"));
  }
  if (part.length.value == 0) part.length.value = size.value - part.offset.value;
  if (!FitsWithin(part, size)) {
    co_return Refused(
        "slice.range.length_bytes",
        absl::StrCat("the slice has ", part.length.value, " bytes from ", part.offset.value,
                     " on, and the disk below it has ", size.value));
  }
  co_return part;
}

absl::StatusOr<std::unique_ptr<Filter>> FilterStack::Builder::Make(
    const filters::SliceOptions& options) {
  const bool to_end = options.partition == 0 && options.range.length.value == 0;
  if (!filters::SliceFits(part_, to_end, below().limits())) MakeAddressable();
  return filters::NewSlice(below(), Environment(), part_, to_end);
}

Task<absl::StatusOr<filters::LuksVolume>> FilterStack::Builder::VolumeOf(
    const filters::LuksOptions& options) {
  const KeySurroundings* const keys = surroundings_.keys;
  if (keys == nullptr) {
    co_return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "filter '", entry().id, "': the daemon has no directory of secrets to open it with")),
        {"FILTER_KIND_DISABLED", {{"kind", "luks"}}});
  }
  const auto read = [&] { return ReadSecretFile(keys->secrets, options.key_file); };
  absl::StatusOr<Secret> secret = co_await keys->workers.Run(read);
  if (!secret.ok()) co_return Refused("luks.key_file", std::string(secret.status().message()));
  MakeAddressable();  // for the sake of the header
  Secret passphrase = *std::move(secret);
  absl::StatusOr<filters::LuksVolume> volume =
      co_await OpenLuks(below(), std::move(passphrase), keys->key_workers, LuksBounds(),
                        surroundings_.states.closing);
  if (absl::IsPermissionDenied(volume.status())) {
    co_return Refused("luks.key_file", std::string(volume.status().message()));
  }
  if (!volume.ok() && !absl::IsUnavailable(volume.status())) {
    co_return Refused("luks", std::string(volume.status().message()));
  }
  co_return volume;
}

absl::StatusOr<std::unique_ptr<Filter>> FilterStack::Builder::Make(
    const filters::LuksOptions& options) {
  absl::StatusOr<std::unique_ptr<Filter>> made =
      filters::NewLuks(below(), Environment(), entry().id, std::move(volume_),
                       options.allow_discards, surroundings_.keys->workers);
  if (!made.ok()) return Refused("luks", std::string(made.status().message()));
  return made;
}

absl::StatusOr<std::unique_ptr<Filter>> FilterStack::Builder::Make(
    const filters::ResizeOptions& options) {
  const ByteCount size = filters::ResizedSize(options, below().limits().size);
  if (size.value == 0 || size.value > kLargestDisk) {
    return Refused("resize", absl::StrCat("the disk would have ", size.value, " bytes"));
  }
  if (!filters::ResizeFits(options, below().limits())) MakeAddressable();
  return filters::NewResize(below(), Environment(), options);
}

absl::StatusOr<std::unique_ptr<Filter>> FilterStack::Builder::Make(
    const filters::CopyOnReadOptions& options) {
  if (!below().limits().writable) {
    return Refused("copy_on_read", "what is below it cannot be written to");
  }
  return filters::NewCopyOnRead(below(), Environment(), options);
}

// An entry goes on with what it had if it stays as it is above the same bytes.
FilterStack::Kept* FilterStack::Builder::KeptBefore() const {
  if (before_ == nullptr) return nullptr;
  const auto found = std::find_if(before_->entries_.begin(), before_->entries_.end(),
                                  [&](const FilterEntry& other) { return other.id == entry().id; });
  if (found == before_->entries_.end()) return nullptr;
  const auto at = static_cast<std::size_t>(found - before_->entries_.begin());
  const Place& other = before_->places_[at];
  if (other.kept == nullptr || !std::visit(SameKept{entry().options}, found->options)) {
    return nullptr;
  }
  const bool same =
      before_->ViewOf(before_->LevelsBelow(at)) == stack_.ViewOf(stack_.upwards_.size());
  return same ? other.kept : nullptr;
}

Task<absl::StatusOr<std::unique_ptr<block::Node>>> FilterStack::Builder::NewScratch(
    std::string_view field, bool in_file, ByteCount size, ByteCount memory, uint32_t block_size) {
  if (!in_file) {
    co_return std::make_unique<block::SparseMemory>(
        block::SparseMemoryOptions{.size = size, .limit = memory, .chunk_bytes = block_size});
  }
  if (surroundings_.host == nullptr) co_return Refused(field, "there is no pool for a file");
  absl::StatusOr<std::unique_ptr<block::Node>> node =
      co_await surroundings_.host->NewScratchFile(surroundings_.pool, size);
  if (node.ok()) co_return node;
  const std::string_view why = AsStd(node.status().message());
  co_return Refused(
      field, absl::StrCat("no file for scratch space can be made in the pool: ", AsAbsl(why)));
}

Task<absl::Status> FilterStack::Builder::Keep() {
  const auto* const cow = std::get_if<CowEntry>(&entry().options);
  const auto* const cache = std::get_if<CacheEntry>(&entry().options);
  const ImageSpec* const image = OtherImageOf(entry().options);
  if (cow == nullptr && cache == nullptr && image == nullptr) co_return absl::OkStatus();
  MakeAddressable();
  if (image != nullptr) {
    CO_RETURN_IF_ERROR(co_await KeepImage(*image));
    if (cow == nullptr) co_return absl::OkStatus();
    co_return co_await KeepChanges(*cow);
  }
  place().kept = KeptBefore();
  if (place().kept != nullptr) co_return absl::OkStatus();
  auto kept = std::make_unique<Kept>();
  if (cow != nullptr) {
    const ByteCount size = below().limits().size;
    CO_ASSIGN_OR_RETURN(kept->scratch,
                        co_await NewScratch("cow.file", cow->in_file, size,
                                            ByteCount{cow->max_memory}, cow->options.block_size));
    kept->cow = std::make_unique<filters::CowState>(cow->options.block_size, false);
  } else {
    const ByteCount size = filters::CacheScratchSize(cache->options);
    CO_ASSIGN_OR_RETURN(kept->scratch, co_await NewScratch("cache.file", cache->in_file, size, size,
                                                           cache->options.block_size));
    kept->cache = filters::NewCacheState(surroundings_.ready, cache->options);
  }
  place().kept = kept.get();
  place().own = std::move(kept);
  co_return absl::OkStatus();
}

std::string_view FilterStack::Builder::ImageField() const {
  if (std::holds_alternative<CowEntry>(entry().options)) return "cow.image.image";
  const bool in_tree = std::get<VerifyEntry>(entry().options).tree.has_value();
  return in_tree ? "verify.hash_tree.image" : "verify.reference_image";
}

// One that the stack before has open for the same purpose stays open; it may become one that is
// written to.
Task<absl::Status> FilterStack::Builder::KeepImage(const ImageSpec& image) {
  const ImageUse use = UseOfOtherImage(surroundings_.read_only, stack_.entries_, index_);
  const std::size_t places = before_ == nullptr ? 0 : before_->places_.size();
  for (std::size_t i = 0; i < places; ++i) {
    Kept* const kept = before_->places_[i].kept;
    const FilterOptions& other = before_->entries_[i].options;
    if (kept == nullptr || kept->image == nullptr) continue;
    if (other.index() != entry().options.index() || *OtherImageOf(other) != image) continue;
    const bool taken = std::any_of(stack_.places_.begin(), stack_.places_.end(),
                                   [&](const Place& one) { return one.kept == kept; });
    if (taken) continue;
    if (kept->cow != nullptr &&
        before_->ViewOf(before_->LevelsBelow(i)) != stack_.ViewOf(stack_.upwards_.size())) {
      co_return Refused(ImageField(), absl::StrCat("what ", image.name,
                                                   " keeps was written above other bytes; take "
                                                   "the entry away first"));
    }
    const ImageUse both = BothUses(kept->use, use);
    const absl::Status changed =
        co_await surroundings_.host->ChangeUse(kept->image, kept->use, both);
    if (!changed.ok()) co_return NotThisImage(changed);
    place().use_before = std::exchange(kept->use, both);
    place().kept = kept;
    co_return absl::OkStatus();
  }
  co_return co_await OpenImage(image, use);
}

Task<absl::Status> FilterStack::Builder::OpenImage(const ImageSpec& image, ImageUse use) {
  const io::Directory* pool = nullptr;
  if (surroundings_.pools != nullptr) {
    const auto found = surroundings_.pools->find(image.pool);
    if (found != surroundings_.pools->end()) pool = found->second;
  }
  if (surroundings_.host == nullptr || pool == nullptr) {
    co_return Refused(ImageField(), "its pool is not known here");
  }
  const absl::StatusOr<Image*> opened = co_await surroundings_.host->AcquireImage(image, pool, use);
  if (!opened.ok()) co_return NotThisImage(opened.status());
  place().own = std::make_unique<Kept>();
  place().own->image = *opened;
  place().own->use = use;
  place().kept = place().own.get();
  co_return absl::OkStatus();
}

// Learns what the image of a cow keeps, if nobody has yet.
Task<absl::Status> FilterStack::Builder::KeepChanges(const CowEntry& cow) {
  Kept& kept = *place().kept;
  Image& image = *kept.image;
  const std::string& name = cow.image->name;
  if (&image.root() == &stack_.root_) {
    co_return Refused(ImageField(), absl::StrCat(name, " is the image that they are made to"));
  }
  const View view = stack_.ViewOf(stack_.upwards_.size());
  if (view.base != nullptr && view.base->image == nullptr) {
    co_return Refused(ImageField(), "it stands above changes that do not stay");
  }
  const uint64_t unit = image.allocation_unit();
  if (unit == 0 || image.backing() != nullptr) {
    co_return Refused(ImageField(), absl::StrCat(name,
                                                 " is no qcow2 image without a backing "
                                                 "image, and keeps no changes"));
  }
  if (image.root().limits().size.value == 0) {
    co_return Refused(ImageField(), absl::StrCat(name, " has no bytes"));
  }
  if (kept.cow != nullptr) co_return absl::OkStatus();
  absl::StatusOr<std::unique_ptr<filters::CowState>> state =
      co_await filters::LoadCowState(image.root(), unit, surroundings_.ready);
  if (!state.ok()) co_return NotThisImage(FormatError(state.status(), image.spec()));
  kept.cow = *std::move(state);
  co_return absl::OkStatus();
}

Task<absl::StatusOr<verity::HashTree>> FilterStack::Builder::TreeOf(const TreeRoot& root) {
  absl::StatusOr<verity::HashTree> tree =
      co_await filters::ReadHashTree(place().kept->image->root());
  if (absl::IsInvalidArgument(tree.status()) || absl::IsDataLoss(tree.status())) {
    co_return Refused(ImageField(), std::string(tree.status().message()));
  }
  if (tree.ok() && root.size != 0 && tree->data_size().value != root.size) {
    co_return Refused("verify.hash_tree.size_bytes",
                      absl::StrCat("the tree is of ", tree->data_size().value, " bytes"));
  }
  co_return tree;
}

absl::StatusOr<std::unique_ptr<Filter>> FilterStack::Builder::Make(const VerifyEntry& verify) {
  block::Node& other = place().kept->image->root();
  if (!verify.tree.has_value()) {
    return filters::NewVerify(below(), Environment(), other, verify.options);
  }
  const std::string& digest = verify.tree->digest;
  absl::StatusOr<std::unique_ptr<Filter>> made = filters::NewVerifyTree(
      below(), Environment(), other, *std::move(tree_), std::as_bytes(std::span(digest)),
      surroundings_.host->workers(), verify.options);
  if (absl::IsInvalidArgument(made.status())) {
    return Refused("verify.hash_tree", std::string(made.status().message()));
  }
  return made;
}

// `status`, an error of an image that the entry needs, with the entry.
absl::Status FilterStack::Builder::NotThisImage(const absl::Status& status) const {
  const absl::Status named = Annotate(status, absl::StrCat("filter '", entry().id, "'"));
  std::optional<Reason> reason = ReasonOf(status);
  if (!reason.has_value() || reason->reason != "FILTER_PARAMETERS_INVALID") return named;
  reason->metadata.insert(reason->metadata.end(), {{"entry-id", entry().id},
                                                   {"index", absl::StrCat(index_)},
                                                   {"field", std::string(ImageField())}});
  return WithReason(named, *reason);
}

Task<absl::Status> FilterStack::Builder::Add(std::size_t index) {
  index_ = index;
  if (const auto* throttle = std::get_if<filters::ThrottleOptions>(&entry().options)) {
    place().throttle = surroundings_.states.throttles.Get(
        StateKey(), [&] { return filters::NewThrottleGroup(*throttle); });
  }
  if (const auto* fault = std::get_if<filters::FaultOptions>(&entry().options)) {
    place().fault =
        surroundings_.states.faults.Get(StateKey(), [&] { return filters::NewFaultState(*fault); });
  }
  if (entry().bypassed) co_return absl::OkStatus();
  CO_RETURN_IF_ERROR(co_await Keep());
  if (const auto* slice = std::get_if<filters::SliceOptions>(&entry().options)) {
    CO_ASSIGN_OR_RETURN(part_, co_await PartOf(*slice));
  }
  if (const auto* luks = std::get_if<filters::LuksOptions>(&entry().options)) {
    CO_ASSIGN_OR_RETURN(volume_, co_await VolumeOf(*luks));
    place().cipher = filters::LuksIdentity(volume_);
    place().cipher_offset = volume_.iv_offset * 512;
  }
  const auto* const verify = std::get_if<VerifyEntry>(&entry().options);
  if (verify != nullptr && verify->tree.has_value()) {
    CO_ASSIGN_OR_RETURN(tree_, co_await TreeOf(*verify->tree));
  }
  absl::StatusOr<std::unique_ptr<Filter>> made =
      std::visit([this](const auto& options) { return Make(options); }, entry().options);
  if (!made.ok()) co_return made.status();
  place().filter = *std::move(made);
  Push(*place().filter, index_);
  co_return absl::OkStatus();
}

}  // namespace gabion::engine
