// Pages of a list that is in memory because it is known to be short.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "service/domain/list_query.h"

namespace gabion::service {

template <typename Resource>
struct MemoryPage {
  std::vector<Resource> resources;
  std::string next_page_token;
};

// The page of `query` of `all`, in the query's order; if that is the order of names, in the order
// `before` instead. What comes and goes between pages repeats or hides no other one.
template <typename Resource, typename Before>
MemoryPage<Resource> PageOf(std::vector<Resource> all, const ListQuery& query, Before before) {
  const auto less = [&](const Resource& a, const Resource& b) {
    return query.order().is_by_name() ? before(a, b) : query.order().Compare(a, b) < 0;
  };
  Resource last;
  const bool first_page = query.after().empty();
  if (!first_page) last.ParseFromString(query.after());  // it was sealed: it is what it was
  const auto unwanted = [&](const Resource& resource) {
    return !query.filter().Matches(resource) || (!first_page && !less(last, resource));
  };
  all.erase(std::remove_if(all.begin(), all.end(), unwanted), all.end());
  std::sort(all.begin(), all.end(), less);
  MemoryPage<Resource> page;
  if (all.size() > query.page_size()) {
    all.resize(query.page_size());
    page.next_page_token = query.Seal(all.back().SerializeAsString());
  }
  page.resources = std::move(all);
  return page;
}

}  // namespace gabion::service
