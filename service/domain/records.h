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
#include "google/protobuf/any.pb.h"
#include "service/domain/page_token.h"
#include "service/errors.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// A resource as it was read.
template <typename Resource>
struct Stored {
  Resource resource;
  uint64_t revision = 0;
};

// One page of a list, as List responses tell it.
template <typename Resource>
struct Listed {
  std::vector<Resource> resources;
  std::string next_page_token;
  uint64_t revision = 0;
};

// The resources of one collection. What is written is on disk when the call returns. Beside its
// row, a resource can have an intent: what is being done to it and would be lost in a crash. Owned
// by a manager; any thread, which blocks.
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

  // Writes a resource that is new, with `intent` if there is one; returns it as it is stored.
  absl::StatusOr<Stored<Resource>> Add(Resource resource,
                                       const google::protobuf::Message* intent = nullptr) {
    return Write(std::move(resource), 0, intent);
  }

  // Writes `resource` over what was read at `revision`; its intent becomes `intent`, or none.
  absl::StatusOr<Stored<Resource>> Save(Resource resource, uint64_t revision,
                                        const google::protobuf::Message* intent = nullptr) {
    return Write(std::move(resource), revision, intent);
  }

  // Removes the resource and its intent.
  absl::Status Erase(const Stored<Resource>& stored) {
    const std::string& name = stored.resource.name();
    std::vector<Mutation> steps = {Remove(collection_, name, stored.revision)};
    RETURN_IF_ERROR(AddIntent(name, nullptr, &steps));
    return store_.Commit(steps).status();
  }

  // The intent of a resource; nothing if there is none.
  absl::StatusOr<std::optional<google::protobuf::Any>> Intent(const std::string& name) const {
    absl::StatusOr<Row> row = store_.Get(kIntents, name);
    if (absl::IsNotFound(row.status())) return std::optional<google::protobuf::Any>();
    if (!row.ok()) return row.status();
    google::protobuf::Any intent;
    if (!intent.ParseFromString(row->value)) return Damaged(name);
    return std::optional<google::protobuf::Any>(std::move(intent));
  }

  // The page of the list `query` behind `page_token`. PAGE_TOKEN_INVALID.
  absl::StatusOr<Listed<Resource>> List(const PageTokens& tokens, int page_size,
                                        std::string_view page_token) const {
    ASSIGN_OR_RETURN(const std::string after, tokens.Open(collection_, page_token));
    ASSIGN_OR_RETURN(const Page page,
                     store_.List(collection_, after, static_cast<size_t>(PageSize(page_size))));
    Listed<Resource> listed;
    listed.revision = page.revision;
    for (const Row& row : page.rows) {
      ASSIGN_OR_RETURN(Stored<Resource> stored, Parse(row));
      listed.resources.push_back(std::move(stored.resource));
    }
    if (page.more) listed.next_page_token = tokens.Seal(collection_, page.rows.back().name);
    return listed;
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

 private:
  static constexpr std::string_view kIntents = "intents";

  static absl::Status Damaged(std::string_view name) {
    return absl::DataLossError(absl::StrCat("The stored row of ", AsAbsl(name), " is damaged."));
  }

  absl::StatusOr<Stored<Resource>> Parse(const Row& row) const {
    Stored<Resource> stored;
    if (!stored.resource.ParseFromString(row.value)) return Damaged(row.name);
    stored.revision = row.revision;
    return stored;
  }

  absl::StatusOr<Stored<Resource>> Write(Resource resource, uint64_t revision,
                                         const google::protobuf::Message* intent) {
    std::vector<Mutation> steps;
    RETURN_IF_ERROR(AddIntent(resource.name(), intent, &steps));
    Mutation put = Put(collection_, resource.name(), resource.SerializeAsString());
    put.expected_revision = revision;
    steps.push_back(std::move(put));  // last, so that the commit's revision is the row's
    ASSIGN_OR_RETURN(const uint64_t written, store_.Commit(steps));
    return Stored<Resource>{std::move(resource), written};
  }

  absl::Status AddIntent(const std::string& name, const google::protobuf::Message* intent,
                         std::vector<Mutation>* steps) const {
    if (intent != nullptr) {
      google::protobuf::Any any;
      any.PackFrom(*intent);
      steps->push_back(Put(kIntents, name, any.SerializeAsString()));
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const std::optional<google::protobuf::Any> old, Intent(name));
    if (old.has_value()) steps->push_back(Remove(kIntents, name));
    return absl::OkStatus();
  }

  MetadataStore& store_;
  std::string_view collection_;
  std::string_view type_;
};

}  // namespace gabion::service
