#include "service/domain/intents.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace gabion::service {
namespace {

constexpr std::string_view kIntents = "intents";

}  // namespace

Mutation Intents::Writing(const std::string& resource, const store::v1::Intent& intent) {
  return Put(kIntents, resource, intent.SerializeAsString());
}

Mutation Intents::Removing(const std::string& resource) { return Remove(kIntents, resource); }

absl::Status Intents::Clear(const std::string& resource, const RequestLog& requests,
                            std::vector<Mutation>* steps) const {
  ASSIGN_OR_RETURN(const std::optional<store::v1::Intent> intent, Find(resource));
  if (!intent.has_value()) return absl::OkStatus();
  RETURN_IF_ERROR(requests.Forget(intent->request(), steps));
  steps->push_back(Removing(resource));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Intents::Names(std::string_view prefix) const {
  std::vector<std::string> names;
  std::string after;
  for (bool more = true; more;) {
    ASSIGN_OR_RETURN(const Page page, store_.List(kIntents, after, 256, prefix));
    for (const Row& row : page.rows) names.push_back(row.name);
    more = page.more;
    if (more) after = page.rows.back().name;
  }
  return names;
}

absl::StatusOr<std::optional<store::v1::Intent>> Intents::Find(const std::string& resource) const {
  const absl::StatusOr<Row> row = store_.Get(kIntents, resource);
  if (absl::IsNotFound(row.status())) return std::optional<store::v1::Intent>();
  if (!row.ok()) return row.status();
  store::v1::Intent intent;
  if (!intent.ParseFromString(row->value)) {
    return absl::DataLossError(absl::StrCat("The stored intent of ", resource, " is damaged."));
  }
  return std::optional<store::v1::Intent>(std::move(intent));
}

}  // namespace gabion::service
