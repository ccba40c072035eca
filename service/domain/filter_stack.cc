#include "service/domain/filter_stack.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/errors.h"
#include "service/filter_registry.h"
#include "service/names.h"

namespace gabion::service {
namespace {

constexpr std::size_t kLongestId = 63;

std::string AtIndex(int index) { return absl::StrCat("export.filter_stack[", index, "]"); }

absl::Status Duplicate(const v1::FilterStackEntry& entry, int index, const std::string& field,
                       const std::string& message) {
  return Error(reason::kStackEntryDuplicate, message)
      .Metadata("entry-id", entry.entry_id())
      .Metadata("index", absl::StrCat(index))
      .Field(field, message);
}

// An error of an entry's filter, with the entry.
absl::Status OfEntry(const absl::Status& status, const v1::FilterStackEntry& entry, int index) {
  return WithMetadata(status, {{"entry-id", entry.entry_id()}, {"index", absl::StrCat(index)}});
}

// What the entry does; nothing if that is a named filter which is not there.
std::optional<v1::FilterSpec> SpecOf(const v1::FilterStackEntry& entry, const FindFilter& find) {
  return entry.has_spec() ? std::optional<v1::FilterSpec>(entry.spec()) : find(entry.filter());
}

// An id for an entry that has none, which is not in `taken`.
std::string NewEntryId(const v1::FilterStackEntry& entry, const std::set<std::string>& taken) {
  std::string base =
      entry.has_spec() ? FilterKindName(entry.spec()) : std::string(IdOf(entry.filter()));
  std::replace(base.begin(), base.end(), '_', '-');
  if (base.empty()) base = "filter";
  std::string id = base;
  for (int number = 2; taken.contains(id); ++number) {
    const std::string suffix = absl::StrCat("-", number);
    id = base.substr(0, kLongestId - suffix.size());
    while (id.back() == '-') id.pop_back();
    id += suffix;
  }
  return id;
}

}  // namespace

absl::Status CompleteStack(v1::Export* exported) {
  std::set<std::string> taken;
  for (int i = 0; i < exported->filter_stack_size(); ++i) {
    const v1::FilterStackEntry& entry = exported->filter_stack(i);
    if (entry.entry_id().empty() || taken.insert(entry.entry_id()).second) continue;
    return Duplicate(entry, i, AtIndex(i) + ".entry_id",
                     absl::StrCat("Another entry is called ", entry.entry_id(), "."));
  }
  for (v1::FilterStackEntry& entry : *exported->mutable_filter_stack()) {
    if (!entry.entry_id().empty()) continue;
    entry.set_entry_id(NewEntryId(entry, taken));
    taken.insert(entry.entry_id());
  }
  return absl::OkStatus();
}

std::string FieldOfEntry(const v1::Export& exported, int index, const EntryFields& fields) {
  const v1::FilterStackEntry& entry = exported.filter_stack(index);
  const auto said = fields.find(entry.entry_id());
  if (said != fields.end()) return said->second;
  return AtIndex(index) + (entry.has_spec() ? ".spec" : ".filter");
}

absl::StatusOr<std::vector<engine::FilterEntry>> ResolveStack(const v1::Export& exported,
                                                              const StackSource& source) {
  std::vector<engine::FilterEntry> entries;
  std::set<std::string> shared;
  for (int i = 0; i < exported.filter_stack_size(); ++i) {
    const v1::FilterStackEntry& entry = exported.filter_stack(i);
    const std::string field = FieldOfEntry(exported, i, source.fields);
    v1::Filter filter;
    if (entry.has_spec()) {
      *filter.mutable_spec() = entry.spec();
    } else {
      absl::StatusOr<v1::Filter> found = source.find(entry.filter(), field);
      if (!found.ok()) return OfEntry(found.status(), entry, i);
      filter = *std::move(found);
    }
    const absl::Status checked = CheckFilterSpec(filter.spec(), field, source.allow_faults);
    if (!checked.ok()) return OfEntry(checked, entry, i);
    const FilterKind& kind = *FindFilterKind(filter.spec());
    engine::FilterEntry& made = entries.emplace_back();
    made.id = entry.entry_id();
    made.bypassed = entry.bypassed();
    absl::StatusOr<engine::FilterOptions> options =
        ResolveFilter(filter.spec(), {field, exported.source(), source.find_image});
    if (!options.ok()) return OfEntry(options.status(), entry, i);
    made.options = *std::move(options);
    if (!kind.shares_state || entry.has_spec()) continue;
    made.shared_as = absl::StrCat(filter.name(), "/", filter.uid());
    if (shared.insert(filter.name()).second) continue;
    return Duplicate(entry, i, field,
                     absl::StrCat(filter.name(), " shares its state: it can stand here once."));
  }
  return entries;
}

std::vector<std::string> FiltersOf(const v1::Export& exported) {
  std::set<std::string> names;
  for (const v1::FilterStackEntry& entry : exported.filter_stack()) {
    if (entry.has_filter()) names.insert(entry.filter());
  }
  return {names.begin(), names.end()};
}

std::vector<std::string> AttachedTo(const v1::Export& exported) {
  std::vector<std::string> names = FiltersOf(exported);
  for (const v1::FilterStackEntry& entry : exported.filter_stack()) {
    if (!entry.has_spec()) continue;
    for (std::string& image : ImagesOf(entry.spec())) names.push_back(std::move(image));
  }
  return names;
}

std::vector<std::string> ImagesOf(const v1::FilterSpec& spec) {
  const NamedImage image = ImageNamedBy(spec);
  if (image.name.empty()) return {};
  return {image.name};
}

std::set<std::string> ImagesNeededBy(const v1::Export& exported, const FindFilter& find) {
  std::set<std::string> images;
  if (!exported.source().empty()) images.insert(exported.source());
  for (const v1::FilterStackEntry& entry : exported.filter_stack()) {
    const std::optional<v1::FilterSpec> spec = SpecOf(entry, find);
    if (!spec.has_value()) continue;
    for (std::string& image : ImagesOf(*spec)) images.insert(std::move(image));
  }
  return images;
}

std::set<std::string> ImagesWrittenBy(const v1::Export& exported, const FindFilter& find) {
  std::set<std::string> images;
  bool writes = !exported.read_only();
  for (const v1::FilterStackEntry& entry : exported.filter_stack()) {
    if (entry.bypassed()) continue;
    const std::optional<v1::FilterSpec> spec = SpecOf(entry, find);
    if (!spec.has_value()) continue;
    const NamedImage image = ImageNamedBy(*spec);
    if (writes && image.is_written && !image.name.empty()) images.insert(image.name);
    if (spec->has_copy_on_read()) writes = true;
    if (spec->has_cow()) writes = false;
  }
  if (writes && !exported.source().empty()) images.insert(exported.source());
  return images;
}

}  // namespace gabion::service
