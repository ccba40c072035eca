// The filter_stack of an export: its entries' names, and what the engine makes of them.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/export.pb.h"
#include "gabion/v1/filter.pb.h"

namespace gabion::service {

// Where a request says what an entry is, by the entry's id; the others are said in
// export.filter_stack.
using EntryFields = std::map<std::string, std::string>;

// How entries of a stack become the engine's.
struct StackSource {
  // The filter of that name, or the error of the API; `field`: where it is named.
  std::function<absl::StatusOr<v1::Filter>(const std::string& name, const std::string& field)> find;
  // An image for the engine, likewise.
  std::function<absl::StatusOr<engine::ImageSpec>(const std::string& name,
                                                  const std::string& field)>
      find_image;
  bool allow_faults = false;
  EntryFields fields;
};

// Gives an id to each entry that has none: that of its filter or its kind, with a number if it is
// taken. STACK_ENTRY_DUPLICATE if two have the same.
absl::Status CompleteStack(v1::Export* exported);

// The field that says what entry `index` is: a named filter, or the parameters of an inline one.
std::string FieldOfEntry(const v1::Export& exported, int index, const EntryFields& fields);

// For the engine. NOT_FOUND for a named filter, STACK_ENTRY_DUPLICATE for one that shares its state
// and stands there twice, and the errors of CheckFilterSpec(). REQUIRES: CompleteStack() was there.
absl::StatusOr<std::vector<engine::FilterEntry>> ResolveStack(const v1::Export& exported,
                                                              const StackSource& source);

// The named filters in the stack, each once.
std::vector<std::string> FiltersOf(const v1::Export& exported);

// These, and the images that its inline filters name: what FilterAttachments are told of.
std::vector<std::string> AttachedTo(const v1::Export& exported);

// The same of a filter: the images that it names.
std::vector<std::string> ImagesOf(const v1::FilterSpec& spec);

// A named filter, or nothing if there is none.
using FindFilter = std::function<std::optional<v1::FilterSpec>(const std::string& name)>;

// The images without which the export is not served: its own, and those that its filters name, of
// bypassed entries too, so that these can come back.
std::set<std::string> ImagesNeededBy(const v1::Export& exported, const FindFilter& find);

// The images that the export writes to, its own and those that its filters name, by the rule of
// engine::WritesBelow(): unless it is read-only, what clients write reaches all that is not below a
// filter of the kind cow; what copy_on_read fills in reaches all below it, down to such a filter,
// also if the export is read-only. Bypassed entries do nothing.
std::set<std::string> ImagesWrittenBy(const v1::Export& exported, const FindFilter& find);

}  // namespace gabion::service
