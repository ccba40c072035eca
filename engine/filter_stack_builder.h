// How a stack's nodes are made. Of filter_stack.cc only.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/filter_stack.h"
#include "engine/filters/verify_tree.h"
#include "engine/luks_key.h"

namespace gabion::engine {

// Makes the nodes of one stack, from the bottom.
class FilterStack::Builder {
 public:
  Builder(const StackSurroundings& surroundings, FilterStack& stack, const FilterStack* before)
      : surroundings_(surroundings), stack_(stack), before_(before) {}

  Task<absl::Status> Add(std::size_t index);
  void MakeAddressable();

 private:
  const FilterEntry& entry() const { return stack_.entries_[index_]; }
  Place& place() { return stack_.places_[index_]; }
  void Push(block::FilterNode& node, std::optional<std::size_t> index) {
    stack_.upwards_.push_back({&node, index});
    stack_.top_ = &node;
  }
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
  // What the entry keeps besides its filter: from the stack before, if it stays, or new.
  Task<absl::Status> Keep();
  Kept* KeptBefore() const;
  Task<absl::StatusOr<std::unique_ptr<block::Node>>> NewScratch(std::string_view field,
                                                                bool in_file, ByteCount size,
                                                                ByteCount memory,
                                                                uint32_t block_size);
  // The same of another image that the entry needs.
  Task<absl::Status> KeepImage(const ImageSpec& image);
  Task<absl::Status> OpenImage(const ImageSpec& image, ImageUse use);
  Task<absl::Status> KeepChanges(const CowEntry& cow);
  Task<absl::StatusOr<verity::HashTree>> TreeOf(const TreeRoot& root);
  std::string_view ImageField() const;
  absl::Status NotThisImage(const absl::Status& status) const;

  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::AlignOptions& options) {
    return filters::NewAlign(below(), Environment(), entry().id, options);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const CacheEntry& cache) {
    return filters::NewCache(below(), Environment(), entry().id, *place().kept->scratch,
                             *place().kept->cache, cache.options);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::CopyOnReadOptions& options);
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const CowEntry&) {
    Kept& kept = *place().kept;
    block::Node& scratch = kept.image != nullptr ? kept.image->root() : *kept.scratch;
    return filters::NewCow(below(), Environment(), entry().id, scratch, *kept.cow);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::DelayOptions& options) {
    return filters::NewDelay(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::FaultOptions& options) {
    return filters::NewFault(below(), Environment(), entry().id, options,
                             *stack_.places_[index_].fault);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(
      const filters::FeatureMaskOptions& options) {
    return filters::NewFeatureMask(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::LogOptions& options) {
    return filters::NewLog(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::LuksOptions& options);
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::ReadaheadOptions& options) {
    return filters::NewReadahead(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::ReadOnlyOptions&) {
    return filters::NewReadOnly(below(), Environment());
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::ResizeOptions& options);
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::RetryOptions& options) {
    return filters::NewRetry(below(), Environment(), options);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::SliceOptions&);
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::StatsOptions&) {
    return filters::NewStats(below(), Environment());
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const filters::ThrottleOptions&) {
    return filters::NewThrottle(below(), Environment(), *stack_.places_[index_].throttle);
  }
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(const VerifyEntry& verify);
  absl::StatusOr<std::unique_ptr<filters::Filter>> Make(
      const filters::WriteProtectOptions& options) {
    return filters::NewWriteProtect(below(), Environment(), options);
  }

  const StackSurroundings& surroundings_;
  FilterStack& stack_;
  const FilterStack* const before_;  // may be null
  std::size_t index_ = 0;
  ByteRange part_;                        // of a slice
  filters::LuksVolume volume_;            // that is shown decrypted
  std::optional<verity::HashTree> tree_;  // that is verified against
};

}  // namespace gabion::engine
