#include "service/domain/intents.h"

#include "absl/strings/str_cat.h"

namespace gabion::service {
namespace {

constexpr std::string_view kIntents = "intents";

}  // namespace

Mutation Intents::Writing(const std::string& resource, const store::v1::Intent& intent) {
  return Put(kIntents, resource, intent.SerializeAsString());
}

Mutation Intents::Removing(const std::string& resource) { return Remove(kIntents, resource); }

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
