// Rows of the store as the resources that they are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/errors.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// A resource as it was read.
template <typename Resource>
struct Stored {
  Resource resource;
  uint64_t revision = 0;
};

// The resources of one collection. Reading is done here; what is to be written is made here and
// committed by the caller, together with what belongs to the same transaction. Owned by a manager;
// any thread, which blocks.
template <typename Resource>
class Records {
 public:
  // `collection`: "images"; `type`: "gabion/Image". Both outlive this.
  Records(MetadataStore& store, std::string_view collection, std::string_view type)
      : store_(store), collection_(collection), type_(type) {}

  // RESOURCE_NOT_FOUND; `field`: where the request names it, if that is not what it is about.
  absl::StatusOr<Stored<Resource>> Get(const std::string& name, std::string_view field = {}) const {
    absl::StatusOr<Row> row = store_.Get(collection_, name);
    if (absl::IsNotFound(row.status())) return NotFound(type_, name, field);
    if (!row.ok()) return row.status();
    return Parse(*row);
  }

  // Nothing if there is none.
  absl::StatusOr<std::optional<Stored<Resource>>> Find(const std::string& name) const {
    absl::StatusOr<Row> row = store_.Get(collection_, name);
    if (absl::IsNotFound(row.status())) return std::optional<Stored<Resource>>();
    if (!row.ok()) return row.status();
    ASSIGN_OR_RETURN(Stored<Resource> stored, Parse(*row));
    return std::optional<Stored<Resource>>(std::move(stored));
  }

  // One answer for each, in order, all from one state.
  std::vector<absl::StatusOr<Stored<Resource>>> GetMany(
      const std::vector<std::string>& names) const {
    std::vector<RowKey> keys;
    for (const std::string& name : names) keys.push_back({std::string(collection_), name});
    const absl::StatusOr<RowsAt> read = store_.GetMany(keys);
    std::vector<absl::StatusOr<Stored<Resource>>> found;
    for (std::size_t i = 0; i < names.size(); ++i) {
      if (!read.ok()) {
        found.emplace_back(read.status());
      } else if (!read->rows[i].has_value()) {
        found.emplace_back(NotFound(type_, names[i]));
      } else {
        found.emplace_back(Parse(*read->rows[i]));
      }
    }
    return found;
  }

  // A step that writes a resource that is new / writes over what was read at `revision` / removes
  // what was read.
  Mutation Adding(const Resource& resource) const {
    return Insert(collection_, resource.name(), resource.SerializeAsString());
  }
  Mutation Saving(const Resource& resource, uint64_t revision) const {
    return Replace(collection_, resource.name(), resource.SerializeAsString(), revision);
  }
  Mutation Erasing(const Stored<Resource>& stored) const {
    return Remove(collection_, stored.resource.name(), stored.revision);
  }

  // Commits `steps` with `last`, a step for `resource`; returns it as it is stored.
  absl::StatusOr<Stored<Resource>> Commit(std::vector<Mutation> steps, Mutation last,
                                          Resource resource) const {
    steps.push_back(std::move(last));  // so that the commit's revision is the row's
    ASSIGN_OR_RETURN(const uint64_t written, store_.Commit(steps));
    return Stored<Resource>{std::move(resource), written};
  }

  // Calls `visit` with each resource, in the order of their names; ends with its first error. What
  // is added behind the current one while it runs may be visited too.
  template <typename Visit>
  absl::Status ForEach(Visit visit) const {
    constexpr size_t kPage = 256;
    std::string after;
    for (bool more = true; more;) {
      ASSIGN_OR_RETURN(const Page page, store_.List(collection_, after, kPage));
      for (const Row& row : page.rows) {
        ASSIGN_OR_RETURN(Stored<Resource> stored, Parse(row));
        RETURN_IF_ERROR(visit(std::move(stored)));
      }
      more = page.more;
      if (more) after = page.rows.back().name;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Stored<Resource>> Parse(const Row& row) const {
    Stored<Resource> stored;
    if (!stored.resource.ParseFromString(row.value)) {
      return absl::DataLossError(absl::StrCat("The stored row of ", row.name, " is damaged."));
    }
    stored.revision = row.revision;
    return stored;
  }

 private:
  MetadataStore& store_;
  std::string_view collection_;
  std::string_view type_;
};

}  // namespace gabion::service
