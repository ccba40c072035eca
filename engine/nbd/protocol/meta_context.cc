#include "engine/nbd/protocol/meta_context.h"

#include <algorithm>
#include <unordered_set>

namespace gabion::nbd {
namespace {

// Does a query other than a full name mean `name`?
bool MatchesPrefix(std::string_view name, const std::vector<std::string_view>& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(),
                     [name](std::string_view prefix) { return name.starts_with(prefix); });
}

}  // namespace

std::vector<std::string> ListContexts(const std::vector<std::string>& available,
                                      const std::vector<std::string>& queries) {
  if (queries.empty()) return available;
  const std::unordered_set<std::string_view> exact(queries.begin(), queries.end());
  std::vector<std::string_view> prefixes;
  for (std::string_view query : exact) {
    if (query.ends_with(':')) prefixes.push_back(query);
  }
  std::vector<std::string> listed;
  for (const std::string& name : available) {
    if (exact.contains(name) || MatchesPrefix(name, prefixes)) listed.push_back(name);
  }
  return listed;
}

std::vector<MetaContext> SelectContexts(const std::vector<std::string>& available,
                                        const std::vector<std::string>& queries) {
  const std::unordered_set<std::string_view> exact(queries.begin(), queries.end());
  std::vector<MetaContext> selected;
  uint32_t id = 0;
  for (const std::string& name : available) {
    ++id;
    if (exact.contains(name)) selected.push_back(MetaContext{id, name});
  }
  return selected;
}

}  // namespace gabion::nbd
