#include "engine/filter_stack.h"

#include <algorithm>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "engine/base/align.h"
#include "engine/base/check.h"
#include "engine/base/reason.h"
#include "engine/base/status_macros.h"
#include "engine/block/aligned_node.h"
#include "engine/luks_key.h"
#include "engine/secret_file.h"

namespace gabion::engine {
namespace {

using filters::Filter;

constexpr uint64_t kLargestDisk = (uint64_t{1} << 63) - 1;

// Kinds whose parameters change while requests are in flight.
template <typename Options>
constexpr bool kIsLive = std::is_same_v<Options, filters::ThrottleOptions> ||
                         std::is_same_v<Options, filters::FaultOptions> ||
                         std::is_same_v<Options, filters::DelayOptions> ||
                         std::is_same_v<Options, filters::WriteProtectOptions> ||
                         std::is_same_v<Options, filters::LogOptions> ||
                         std::is_same_v<Options, filters::ReadaheadOptions> ||
                         std::is_same_v<Options, filters::RetryOptions>;

// Kinds that show other bytes than there are below, place by place.
bool Translates(const FilterEntry& entry) {
  return !entry.bypassed && std::holds_alternative<filters::LuksOptions>(entry.options);
}

// True if the one options can become the others without new nodes.
struct LiveChange {
  const FilterOptions& to;

  template <typename Options>
  bool operator()(const Options& from) const {
    const Options* const wanted = std::get_if<Options>(&to);
    return wanted != nullptr && (*wanted == from || Allows(from, *wanted));
  }

  static bool Allows(const filters::FaultOptions& from, const filters::FaultOptions& wanted) {
    return from.alignment == wanted.alignment;
  }
  template <typename Options>
  static bool Allows(const Options&, const Options&) {
    return kIsLive<Options>;
  }
};

// Gives a filter its parameters, if they can change.
struct Configurer {
  Filter* filter;

  template <typename Options>
  void operator()(const Options& options) const {
    if constexpr (kIsLive<Options>) {
      static_cast<filters::LiveFilter<Options>*>(filter)->Configure(options);
    }
  }
};

bool IsAddressable(const block::Limits& limits) {
  return limits.alignment.value <= 1 && limits.memory_alignment <= 1;
}

}  // namespace

// Makes the nodes of one stack, from the bottom.
class FilterStack::Builder {
 public:
  Builder(const StackSurroundings& surroundings, FilterStack& stack)
      : surroundings_(surroundings), stack_(stack) {}

  Task<absl::Status> Add(std::size_t index);
  void MakeAddressable();

 private:
  const FilterEntry& entry() const { return stack_.entries_[index_]; }
  block::Node& below() { return *stack_.top_; }
  filters::Environment Environment() const {
    return {surroundings_.ready, surroundings_.clock, surroundings_.logger,
            absl::StrCat(surroundings_.export_name, ", filter '", entry().id, "'")};
  }
  // Under which an entry keeps a state of its kind.
  std::string StateKey() const {
    if (!entry().shared_as.empty()) return entry().shared_as;
    return absl::StrCat(surroundings_.export_name, "#", surroundings_.incarnation, "/", entry().id);
  }
  absl::Status Refused(std::string_view field, const std::string& message) const;
  Task<absl::StatusOr<ByteRange>> PartOf(const filters::SliceOptions& options);
  Task<absl::StatusOr<filters::LuksVolume>> VolumeOf(const filters::LuksOptions& options);

  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::AlignOptions& options) {
    return filters::NewAlign(below(), Environment(), entry().id, options);
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::DelayOptions& options) {
    return filters::NewDelay(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::FaultOptions& options) {
    return filters::NewFault(below(), Environment(), entry().id, options,
                             *stack_.places_[index_].fault);
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::FeatureMaskOptions& options) {
    return filters::NewFeatureMask(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::LogOptions& options) {
    return filters::NewLog(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::LuksOptions& options);
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::ReadaheadOptions& options) {
    return filters::NewReadahead(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::ReadOnlyOptions&) {
    return filters::NewReadOnly(below(), Environment());
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::ResizeOptions& options);
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::RetryOptions& options) {
    return filters::NewRetry(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::SliceOptions&);
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::StatsOptions&) {
    return filters::NewStats(below(), Environment());
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::ThrottleOptions&) {
    return filters::NewThrottle(below(), Environment(), *stack_.places_[index_].throttle);
  }
  absl::StatusOr<std::unique_ptr<Filter>> Make(const filters::WriteProtectOptions& options) {
    return filters::NewWriteProtect(below(), Environment(), options);
  }

  const StackSurroundings& surroundings_;
  FilterStack& stack_;
  std::size_t index_ = 0;
  ByteRange part_;              // of a slice
  filters::LuksVolume volume_;  // that is shown decrypted
};

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
  stack_.upwards_.push_back(aligned.get());
  stack_.top_ = aligned.get();
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
      co_await OpenLuks(below(), std::move(passphrase), keys->key_workers, LuksBounds());
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

Task<absl::Status> FilterStack::Builder::Add(std::size_t index) {
  index_ = index;
  Place& place = stack_.places_[index];
  if (const auto* throttle = std::get_if<filters::ThrottleOptions>(&entry().options)) {
    place.throttle = surroundings_.states.throttles.Get(
        StateKey(), [&] { return filters::NewThrottleGroup(*throttle); });
  }
  if (const auto* fault = std::get_if<filters::FaultOptions>(&entry().options)) {
    place.fault =
        surroundings_.states.faults.Get(StateKey(), [&] { return filters::NewFaultState(*fault); });
  }
  if (entry().bypassed) co_return absl::OkStatus();
  if (const auto* slice = std::get_if<filters::SliceOptions>(&entry().options)) {
    CO_ASSIGN_OR_RETURN(part_, co_await PartOf(*slice));
  }
  if (const auto* luks = std::get_if<filters::LuksOptions>(&entry().options)) {
    CO_ASSIGN_OR_RETURN(volume_, co_await VolumeOf(*luks));
  }
  absl::StatusOr<std::unique_ptr<Filter>> made =
      std::visit([this](const auto& options) { return Make(options); }, entry().options);
  if (!made.ok()) co_return made.status();
  place.filter = *std::move(made);
  stack_.upwards_.push_back(place.filter.get());
  stack_.top_ = place.filter.get();
  co_return absl::OkStatus();
}

FilterStack::FilterStack(block::Node& root, std::vector<FilterEntry> entries)
    : entries_(std::move(entries)), places_(entries_.size()), top_(&root) {}

// From the top: nobody outlives what it stands on.
FilterStack::~FilterStack() {
  for (Place& place : places_) place.filter.reset();
}

Task<absl::StatusOr<std::unique_ptr<FilterStack>>> FilterStack::Build(
    StackSurroundings surroundings, block::Node& root, std::vector<FilterEntry> entries) {
  std::unique_ptr<FilterStack> stack(new FilterStack(root, std::move(entries)));
  Builder builder(surroundings, *stack);
  for (std::size_t i = stack->entries_.size(); i > 0; --i) {
    CO_RETURN_IF_ERROR(co_await builder.Add(i - 1));
  }
  builder.MakeAddressable();
  co_return stack;
}

bool FilterStack::CanConfigure(const std::vector<FilterEntry>& entries) const {
  return std::equal(entries.begin(), entries.end(), entries_.begin(), entries_.end(),
                    [](const FilterEntry& to, const FilterEntry& from) {
                      return to.id == from.id && to.bypassed == from.bypassed &&
                             to.shared_as == from.shared_as &&
                             std::visit(LiveChange{to.options}, from.options);
                    });
}

void FilterStack::Configure(const std::vector<FilterEntry>& entries) {
  CHECK_EQ(entries.size(), entries_.size());
  entries_ = entries;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (places_[i].filter == nullptr) continue;
    std::visit(Configurer{places_[i].filter.get()}, entries_[i].options);
  }
}

void FilterStack::TakeOver(FilterStack& before) {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    for (std::size_t k = 0; k < before.entries_.size(); ++k) {
      const bool same = entries_[i].id == before.entries_[k].id &&
                        entries_[i].options.index() == before.entries_[k].options.index() &&
                        entries_[i].shared_as == before.entries_[k].shared_as;
      if (!same || places_[i].filter == nullptr || before.places_[k].filter == nullptr) continue;
      places_[i].filter->TakeOver(*before.places_[k].filter);
    }
  }
  Configure(std::vector<FilterEntry>(entries_));
}

std::vector<FilterStack::Piece> FilterStack::Pieces() const {
  std::vector<Piece> pieces;
  const ByteCount size = top_->limits().size;
  for (ByteOffset at; at.value < size.value;) {
    ByteRange shown{at, ByteCount{size.value - at.value}};
    std::optional<ByteRange> origin = shown;
    for (auto node = upwards_.rbegin(); node != upwards_.rend() && origin.has_value(); ++node) {
      ByteRange here = *origin;
      origin = (*node)->OriginOf(here);
      shown.length = origin.has_value() ? origin->length : here.length;
    }
    const std::optional<ByteOffset> from =
        origin.has_value() ? std::optional(origin->offset) : std::nullopt;
    const bool goes_on = !pieces.empty() && pieces.back().from.has_value() == from.has_value() &&
                         (!from.has_value() || *pieces.back().from + pieces.back().length == *from);
    if (goes_on) {
      pieces.back().length = pieces.back().length + shown.length;
    } else {
      pieces.push_back({from, shown.length});
    }
    at = shown.end();
  }
  return pieces;
}

bool FilterStack::ShowsSameBytes(const FilterStack& other) const {
  // An encrypted disk has one key, whichever passphrase leads to it.
  const auto translated = [](const FilterStack& stack) {
    return std::count_if(stack.entries_.begin(), stack.entries_.end(), Translates);
  };
  return translated(*this) == translated(other) && Pieces() == other.Pieces();
}

void FilterStack::Refresh() {
  for (block::FilterNode* const node : upwards_) node->Refresh();
}

void FilterStack::Hurry() {
  for (const Place& place : places_) {
    if (place.filter != nullptr) place.filter->Hurry();
  }
}

Task<void> FilterStack::Settle() {
  for (const Place& place : places_) {
    if (place.filter != nullptr) co_await place.filter->Settle();
  }
}

std::vector<FilterStatistics> FilterStack::GetStatistics() const {
  std::vector<FilterStatistics> all;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    FilterStatistics& one = all.emplace_back();
    one.entry_id = entries_[i].id;
    one.bypassed = entries_[i].bypassed;
    if (places_[i].filter != nullptr) one.statistics = places_[i].filter->GetStatistics();
  }
  return all;
}

std::vector<FilterStack::Level> FilterStack::Levels() const {
  std::vector<Level> levels;
  auto node = upwards_.rbegin();
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const filters::Filter* const filter = places_[i].filter.get();
    for (; filter != nullptr && *node != filter; ++node) levels.push_back({*node, nullptr});
    levels.push_back({filter, &entries_[i]});
    if (filter != nullptr) ++node;
  }
  for (; node != upwards_.rend(); ++node) levels.push_back({*node, nullptr});
  return levels;
}

}  // namespace gabion::engine
