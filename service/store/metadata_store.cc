#include "service/store/metadata_store.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace gabion::service {
namespace {

constexpr std::string_view kBookkeeping[] = {"requests", "expiries", "jobs", "intents", "settings"};

}  // namespace

Mutation Insert(std::string_view collection, std::string_view name, std::string value) {
  return Replace(collection, name, std::move(value), 0);
}

Mutation Replace(std::string_view collection, std::string_view name, std::string value,
                 uint64_t expected_revision) {
  Mutation step = Put(collection, name, std::move(value));
  step.expected_revision = expected_revision;
  return step;
}

Mutation Put(std::string_view collection, std::string_view name, std::string value) {
  return {Mutation::Kind::kPut, std::string(collection), std::string(name), std::move(value),
          std::nullopt};
}

Mutation Remove(std::string_view collection, std::string_view name,
                std::optional<uint64_t> expected_revision) {
  return {Mutation::Kind::kDelete, std::string(collection), std::string(name), "",
          expected_revision};
}

Mutation Touch(std::string_view collection, std::string_view name) {
  return {Mutation::Kind::kTouch, std::string(collection), std::string(name), "", std::nullopt};
}

bool IsLogged(std::string_view collection) {
  return std::ranges::find(kBookkeeping, collection) == std::end(kBookkeeping);
}

}  // namespace gabion::service
