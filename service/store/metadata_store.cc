#include "service/store/metadata_store.h"

#include <utility>

namespace gabion::service {

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

}  // namespace gabion::service
