// The part of ExportManager for the filters of exports.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "service/domain/export_manager.h"
#include "service/domain/filter_stack.h"
#include "service/errors.h"
#include "service/etag.h"
#include "service/names.h"

namespace gabion::service {
namespace {

using Stack = google::protobuf::RepeatedPtrField<v1::FilterStackEntry>;

constexpr std::string_view kEntryType = "gabion/FilterStackEntry";
constexpr int kMostEntries = 64;

// Where the entry of that id is; the size of the stack if there is none.
int IndexOf(const Stack& stack, const std::string& entry_id) {
  const auto found = std::find_if(stack.begin(), stack.end(),
                                  [&](const auto& entry) { return entry.entry_id() == entry_id; });
  return static_cast<int>(found - stack.begin());
}

absl::Status NoSuchPosition(std::string_view field, const std::string& message) {
  return Error(reason::kFieldInvalid, message).Field(field, message);
}

// The index that the entry of `request` gets.
absl::StatusOr<int> PositionIn(const Stack& stack, const v1::AttachFilterRequest& request) {
  const auto of_entry = [&](const std::string& id, const char* field) -> absl::StatusOr<int> {
    const int index = IndexOf(stack, id);
    if (index < stack.size()) return index;
    return NoSuchPosition(field, absl::StrCat("The export has no entry ", id, "."));
  };
  switch (request.position_case()) {
    case v1::AttachFilterRequest::kIndex:
      if (request.index() <= static_cast<uint32_t>(stack.size())) {
        return static_cast<int>(request.index());
      }
      return NoSuchPosition("index", absl::StrCat("The export has ", stack.size(), " entries."));
    case v1::AttachFilterRequest::kBeforeEntryId:
      return of_entry(request.before_entry_id(), "before_entry_id");
    case v1::AttachFilterRequest::kAfterEntryId: {
      ASSIGN_OR_RETURN(const int index, of_entry(request.after_entry_id(), "after_entry_id"));
      return index + 1;
    }
    default:
      return 0;
  }
}

// Where an UpdateFilter says what the entries are that name the filter.
EntryFields FieldsOf(const v1::Export& exported, const v1::Filter& filter) {
  EntryFields fields;
  for (const v1::FilterStackEntry& entry : exported.filter_stack()) {
    if (entry.filter() == filter.name()) fields[entry.entry_id()] = "filter.spec";
  }
  return fields;
}

std::set<std::string> Without(std::set<std::string> names, const std::set<std::string>& others) {
  for (const std::string& name : others) names.erase(name);
  return names;
}

// `exported` with one entry more.
absl::Status Insert(const v1::AttachFilterRequest& request, v1::Export* exported) {
  Stack& stack = *exported->mutable_filter_stack();
  const std::string& id = request.entry().entry_id();
  if (!id.empty() && IndexOf(stack, id) < stack.size()) {
    const std::string message = absl::StrCat(exported->name(), " has an entry ", id, " already.");
    return Error(reason::kFilterAlreadyAttached, message)
        .Metadata("entry-id", id)
        .Field("entry.entry_id", message)
        .Resource(kEntryType, id);
  }
  if (stack.size() >= kMostEntries) {
    const std::string message = absl::StrCat("A stack has at most ", kMostEntries, " entries.");
    return Error(reason::kFilterStackTooDeep, message).Field("entry", message);
  }
  ASSIGN_OR_RETURN(const int position, PositionIn(stack, request));
  *stack.Add() = request.entry();
  std::rotate(stack.pointer_begin() + position, stack.pointer_end() - 1, stack.pointer_end());
  return CompleteStack(exported);
}

}  // namespace

absl::StatusOr<ExportManager::StoredExport> ExportManager::RowToChange(const std::string& name,
                                                                       const std::string& etag) {
  RETURN_IF_ERROR(SettleChange(name));
  ASSIGN_OR_RETURN(StoredExport stored, records_.Get(name));
  RETURN_IF_ERROR(CheckEtag(etag, Show({stored.resource}).front()));
  RETURN_IF_ERROR(CheckNotDeleted(stored.resource));
  return stored;
}

absl::StatusOr<v1::Export> ExportManager::AttachFilter(const v1::AttachFilterRequest& request,
                                                       const Call& call) {
  ASSIGN_OR_RETURN(const StoredExport seen, records_.Get(request.name()));
  v1::Export asked = seen.resource;
  *asked.add_filter_stack() = request.entry();
  ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                   LockAround(request.name(), &asked, call.patience));
  ASSIGN_OR_RETURN(const StoredExport before, RowToChange(request.name(), request.etag()));
  v1::Export after = before.resource;
  RETURN_IF_ERROR(Insert(request, &after));
  // An id that was given by Insert() is that of the entry which was not there.
  FilterChange change = ChangeAskedBy(request);
  for (const v1::FilterStackEntry& entry : after.filter_stack()) {
    const Stack& old = before.resource.filter_stack();
    if (IndexOf(old, entry.entry_id()) < old.size()) continue;
    change.fields[entry.entry_id()] = entry.has_spec() ? "entry.spec" : "entry.filter";
  }
  return Bring(before, Show({before.resource}).front(), std::move(after), change, call);
}

absl::StatusOr<v1::Export> ExportManager::DetachFilter(const v1::DetachFilterRequest& request,
                                                       const Call& call) {
  ASSIGN_OR_RETURN(const ResourceLocks::Guard lock,
                   LockAround(request.name(), nullptr, call.patience));
  ASSIGN_OR_RETURN(const StoredExport before, RowToChange(request.name(), request.etag()));
  const v1::Export shown = Show({before.resource}).front();
  v1::Export after = before.resource;
  const int index = IndexOf(after.filter_stack(), request.entry_id());
  if (index == after.filter_stack_size()) {
    if (request.allow_missing()) return AnswerAsItIs(shown, call);
    const std::string message =
        absl::StrCat(request.name(), " has no entry ", request.entry_id(), ".");
    return Error(reason::kResourceNotFound, message)
        .Metadata("entry-id", request.entry_id())
        .Field("entry_id", message)
        .Resource(kEntryType, request.entry_id());
  }
  after.mutable_filter_stack()->DeleteSubrange(index, 1);
  return Bring(before, shown, std::move(after), ChangeAskedBy(request), call);
}

std::optional<v1::FilterSpec> ExportManager::FindFilterSpec(const std::string& name) const {
  const Records<v1::Filter> filters(context_.store, kFilters, kFilterType);
  absl::StatusOr<Stored<v1::Filter>> filter = filters.Get(name);
  if (!filter.ok()) return std::nullopt;
  return std::move(*filter->resource.mutable_spec());
}

FindFilter ExportManager::FiltersWith(const FilterChange& change) const {
  return [this, other = change.instead](const std::string& name) {
    const bool is_other = other != nullptr && other->name() == name;
    return is_other ? std::optional<v1::FilterSpec>(other->spec()) : FindFilterSpec(name);
  };
}

std::set<std::string> ExportManager::NeededBy(const v1::Export& exported,
                                              const FilterChange& change) const {
  return ImagesNeededBy(exported, FiltersWith(change));
}

std::set<std::string> ExportManager::WrittenBy(const v1::Export& exported,
                                               const FilterChange& change) const {
  return ImagesWrittenBy(exported, FiltersWith(change));
}

absl::Status ExportManager::CheckImages(const v1::Export& exported,
                                        const std::set<std::string>& needed,
                                        const std::set<std::string>& written) const {
  const std::set<std::string> come_to_write = Without(WrittenBy(exported), written);
  std::set<std::string> come = Without(NeededBy(exported), needed);
  come.insert(come_to_write.begin(), come_to_write.end());
  for (const std::string& image : come) RETURN_IF_ERROR(images_.CheckNotWorkedOn(image));
  return CheckWritable(come_to_write);
}

absl::Status ExportManager::CheckWritable(const std::set<std::string>& images) const {
  for (const std::string& image : images) RETURN_IF_ERROR(images_.CheckNothingStandsOn(image));
  return absl::OkStatus();
}

absl::Status ExportManager::SettleChanges(const std::vector<std::string>& names) {
  for (const std::string& name : names) RETURN_IF_ERROR(SettleChange(name));
  return absl::OkStatus();
}

absl::Status ExportManager::CheckFilter(const std::vector<std::string>& names,
                                        const v1::Filter& before, const v1::Filter& after,
                                        const FilterChange& change) const {
  FilterChange to = change;
  to.instead = &after;
  FilterChange from = change;
  from.instead = &before;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const std::optional<StoredExport> stored, records_.Find(name));
    if (!stored.has_value()) continue;
    to.fields = FieldsOf(stored->resource, after);
    const v1::Export& row = stored->resource;
    const absl::Status writable = CheckWritable(Without(WrittenBy(row, to), WrittenBy(row, from)));
    if (!writable.ok()) return WithMetadata(writable, {{"export", name}});
    absl::Status planned = serving_.CheckStack(row, to, NeededBy(row, from));
    if (planned.ok()) planned = serving_.Check(row, to).status();
    if (planned.ok() || !serving_.Check(row, from).ok()) continue;
    return WithMetadata(planned, {{"export", name}});
  }
  return absl::OkStatus();
}

absl::Status ExportManager::ChangeFilter(const std::vector<std::string>& names,
                                         const v1::Filter& filter, const FilterChange& change,
                                         std::vector<std::string>* done) const {
  FilterChange to = change;
  to.instead = &filter;
  const std::vector<ExportServing::State> states = serving_.Look(names);
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (!states[i].ok()) continue;
    ASSIGN_OR_RETURN(std::optional<StoredExport> stored, records_.Find(names[i]));
    if (!stored.has_value()) continue;
    v1::Export& row = stored->resource;
    if (!row.operation().empty()) row.set_enabled(false);  // it is seeing its clients off
    to.fields = FieldsOf(row, filter);
    done->push_back(names[i]);
    const ExportServing::State changed = serving_.Change(row, to);
    if (!changed.ok()) return WithMetadata(changed.status(), {{"export", names[i]}});
  }
  return absl::OkStatus();
}

void ExportManager::FilterChanged(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const absl::StatusOr<StoredExport> stored = records_.Get(name);
    const bool failed = stored.ok() && stored->resource.state() == v1::Export::STATE_FAILED;
    if (failed && stored->resource.operation().empty()) reconciler_.Add(name);
  }
}

}  // namespace gabion::service
