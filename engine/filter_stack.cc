#include "engine/filter_stack.h"

#include <algorithm>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>

#include "engine/base/check.h"
#include "engine/base/status_macros.h"
#include "engine/export_use.h"
#include "engine/filter_stack_builder.h"

namespace gabion::engine {
namespace {

using filters::Filter;

// Kinds whose parameters change while requests are in flight.
template <typename Options>
constexpr bool kIsLive =
    std::is_same_v<Options, filters::ThrottleOptions> ||
    std::is_same_v<Options, filters::FaultOptions> ||
    std::is_same_v<Options, filters::DelayOptions> ||
    std::is_same_v<Options, filters::WriteProtectOptions> ||
    std::is_same_v<Options, filters::LogOptions> ||
    std::is_same_v<Options, filters::ReadaheadOptions> ||
    std::is_same_v<Options, filters::RetryOptions> || std::is_same_v<Options, CacheEntry> ||
    std::is_same_v<Options, VerifyEntry>;

// Options inside those of an entry.
template <typename Options>
constexpr bool kIsLiveInside = std::is_same_v<Options, filters::CacheOptions> ||
                               std::is_same_v<Options, filters::VerifyOptions>;

bool IsCipher(const FilterEntry& entry) {
  return std::holds_alternative<filters::LuksOptions>(entry.options);
}

bool IsCow(const FilterEntry& entry) { return std::holds_alternative<CowEntry>(entry.options); }

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
  static bool Allows(const CacheEntry& from, const CacheEntry& wanted) {
    return from.in_file == wanted.in_file && from.options.block_size == wanted.options.block_size &&
           from.options.size == wanted.options.size;
  }
  static bool Allows(const VerifyEntry& from, const VerifyEntry& wanted) {
    return from.reference == wanted.reference && from.tree == wanted.tree;
  }
  template <typename Options>
  static bool Allows(const Options&, const Options&) {
    return kIsLive<Options>;
  }
};

// Gives a filter its parameters, if they can change.
struct Configurer {
  Filter* filter;

  void operator()(const CacheEntry& cache) const { (*this)(cache.options); }
  void operator()(const VerifyEntry& verify) const { (*this)(verify.options); }
  template <typename Options>
  void operator()(const Options& options) const {
    if constexpr (kIsLive<Options> || kIsLiveInside<Options>) {
      static_cast<filters::LiveFilter<Options>*>(filter)->Configure(options);
    }
  }
};

}  // namespace

FilterStack::FilterStack(block::Node& root, StackHost* host, std::vector<FilterEntry> entries)
    : entries_(std::move(entries)),
      places_(entries_.size()),
      root_(root),
      host_(host),
      top_(&root) {}

// From the top: nobody outlives what it stands on.
FilterStack::~FilterStack() {
  for (Place& place : places_) place.filter.reset();
}

Task<absl::StatusOr<std::unique_ptr<FilterStack>>> FilterStack::Build(
    StackSurroundings surroundings, block::Node& root, std::vector<FilterEntry> entries,
    const FilterStack* before) {
  std::unique_ptr<FilterStack> stack(new FilterStack(root, surroundings.host, std::move(entries)));
  Builder builder(surroundings, *stack, before);
  for (std::size_t i = stack->entries_.size(); i > 0; --i) {
    const absl::Status added = co_await builder.Add(i - 1);
    if (added.ok()) continue;
    co_await stack->Settle();
    co_return added;
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
  for (Place& place : places_) {
    place.use_before.reset();
    for (Place& other : before.places_) {
      if (other.own != nullptr && other.own.get() == place.kept) place.own = std::move(other.own);
    }
  }
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

std::size_t FilterStack::LevelsBelow(std::size_t entry) const {
  const auto found = std::find_if(upwards_.begin(), upwards_.end(),
                                  [&](const Floor& floor) { return floor.entry == entry; });
  CHECK(found != upwards_.end());
  return static_cast<std::size_t>(found - upwards_.begin());
}

FilterStack::View FilterStack::ViewOf(std::size_t levels) const {
  View view;
  const auto begins = std::span(upwards_).first(levels);
  const auto entry_of = [&](const Floor& floor) -> const FilterEntry* {
    return floor.entry.has_value() ? &entries_[*floor.entry] : nullptr;
  };
  const auto base = std::find_if(begins.rbegin(), begins.rend(), [&](const Floor& floor) {
    return floor.entry.has_value() && IsCow(*entry_of(floor));
  });
  if (base != begins.rend()) view.base = places_[*base->entry].kept;
  const ByteCount size = levels == 0 ? root_.limits().size : begins.back().node->limits().size;
  for (ByteOffset at; at.value < size.value;) {
    ByteRange shown{at, ByteCount{size.value - at.value}};
    std::optional<ByteRange> origin = shown;
    Piece piece;
    for (auto floor = begins.rbegin(); floor != base && origin.has_value(); ++floor) {
      if (floor->entry.has_value() && IsCipher(*entry_of(*floor))) {
        const Place& place = places_[*floor->entry];
        piece.through.push_back({place.cipher, place.cipher_offset + origin->offset.value});
      }
      ByteRange here = *origin;
      origin = floor->node->OriginOf(here);
      shown.length = origin.has_value() ? origin->length : here.length;
    }
    if (origin.has_value()) piece.from = origin->offset;
    if (!origin.has_value()) piece.through.clear();
    piece.length = shown.length;
    at = shown.end();
    if (!view.pieces.empty() && GoesOn(view.pieces.back(), piece)) {
      view.pieces.back().length = view.pieces.back().length + piece.length;
    } else {
      view.pieces.push_back(std::move(piece));
    }
  }
  return view;
}

bool FilterStack::GoesOn(const Piece& last, const Piece& piece) {
  if (last.from.has_value() != piece.from.has_value()) return false;
  if (!last.from.has_value()) return true;
  return *last.from + last.length == *piece.from &&
         std::equal(last.through.begin(), last.through.end(), piece.through.begin(),
                    piece.through.end(), [&](const Translation& a, const Translation& b) {
                      return a.cipher == b.cipher && a.at + last.length.value == b.at;
                    });
}

bool FilterStack::ShowsSameBytes(const FilterStack& other) const {
  return ViewOf(upwards_.size()) == other.ViewOf(other.upwards_.size());
}

bool FilterStack::CanConfigureFor(bool read_only_changes) const {
  return !read_only_changes || std::none_of(places_.begin(), places_.end(), [](const Place& place) {
    return place.kept != nullptr && place.kept->image != nullptr;
  });
}

void FilterStack::Refresh() {
  for (const Floor& floor : upwards_) floor.node->Refresh();
}

bool FilterStack::KeepsScratch() const {
  return std::any_of(places_.begin(), places_.end(), [](const Place& place) {
    return place.kept != nullptr && place.kept->cow != nullptr;
  });
}

bool FilterStack::Needs(const Image& image) const {
  return std::any_of(places_.begin(), places_.end(), [&](const Place& place) {
    return place.kept != nullptr && place.kept->image == &image;
  });
}

Task<absl::Status> FilterStack::GrowTo(const Kept& kept, ByteCount size) {
  if (kept.image != nullptr) {
    block::Node& root = kept.image->root();
    if (size <= root.limits().size || !NeedsWriter(kept.use)) return absl::OkStatus();
    return kept.image->Grow(size);
  }
  if (size <= kept.scratch->limits().size) return absl::OkStatus();
  return kept.scratch->Resize(size);
}

Task<absl::Status> FilterStack::GrowScratch() {
  absl::Status status;
  for (std::size_t i = 0; i < upwards_.size(); ++i) {
    const Floor floor = upwards_[i];
    Kept* const kept = floor.entry.has_value() ? places_[*floor.entry].kept : nullptr;
    if (kept != nullptr && kept->cow != nullptr) {
      const ByteCount size = std::as_const(*floor.node).child().limits().size;
      const absl::Status grown = co_await GrowTo(*kept, size);
      status.Update(grown);
    }
    floor.node->Refresh();
  }
  co_return status;
}

bool FilterStack::HasKeptChanges() const {
  return std::any_of(places_.begin(), places_.end(), [](const Place& place) {
    return place.kept != nullptr && place.kept->cow != nullptr && place.kept->cow->kept &&
           place.kept->cow->blocks.size() > 0;
  });
}

Task<void> FilterStack::LowerUses(bool read_only) {
  for (std::size_t i = 0; i < places_.size(); ++i) {
    Kept* const kept = places_[i].kept;
    if (kept == nullptr || kept->image == nullptr) continue;
    const ImageUse needed = UseOfOtherImage(read_only, entries_, i);
    const absl::Status lowered = co_await host_->ChangeUse(kept->image, kept->use, needed);
    if (lowered.ok()) kept->use = needed;
  }
}

bool FilterStack::HasCaches() const {
  return std::any_of(places_.begin(), places_.end(), [](const Place& place) {
    return place.kept != nullptr && place.kept->cache != nullptr;
  });
}

bool FilterStack::HoldsUnwritten() const {
  return std::any_of(places_.begin(), places_.end(), [](const Place& place) {
    return place.kept != nullptr && place.kept->cache != nullptr &&
           filters::UnwrittenBytes(*place.kept->cache).value > 0;
  });
}

filters::LiveFilter<filters::CacheOptions>* FilterStack::CacheAt(std::size_t entry) const {
  const Place& place = places_[entry];
  if (place.kept == nullptr || place.kept->cache == nullptr) return nullptr;
  return static_cast<filters::LiveFilter<filters::CacheOptions>*>(place.filter.get());
}

Task<absl::Status> FilterStack::WriteBack() {
  absl::Status status;
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    auto* const cache = CacheAt(i);
    if (cache == nullptr) continue;
    filters::CacheOptions options = std::get<CacheEntry>(entries_[i].options).options;
    options.mode = filters::CacheOptions::Mode::kWritethrough;
    cache->Configure(options);
    const absl::Status flushed = co_await cache->Flush();
    status.Update(flushed);
  }
  co_return status;
}

void FilterStack::ResumeCaches() {
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    auto* const cache = CacheAt(i);
    if (cache != nullptr) cache->Configure(std::get<CacheEntry>(entries_[i].options).options);
  }
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
  for (Place& place : places_) {
    if (place.use_before.has_value()) {  // this stack was not needed after all
      Kept& kept = *place.kept;
      const absl::Status less = co_await host_->ChangeUse(kept.image, kept.use, *place.use_before);
      CHECK(less.ok());
      kept.use = *place.use_before;
    }
    if (place.own == nullptr) continue;
    Kept& kept = *place.own;
    if (kept.scratch != nullptr) {
      // Nobody wants its content on the disk any more.
      const absl::Status emptied = co_await kept.scratch->Resize(ByteCount{0});
      emptied.IgnoreError();
      const absl::Status closed = co_await kept.scratch->Close();
      closed.IgnoreError();
    }
    if (kept.image != nullptr) co_await host_->ReleaseImage(kept.image, kept.use);
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
    for (; filter != nullptr && node->node != filter; ++node) {
      levels.push_back({node->node, nullptr});
    }
    Image* const image = places_[i].kept == nullptr ? nullptr : places_[i].kept->image;
    levels.push_back({filter, &entries_[i], image});
    if (filter != nullptr) ++node;
  }
  for (; node != upwards_.rend(); ++node) levels.push_back({node->node, nullptr});
  return levels;
}

}  // namespace gabion::engine
