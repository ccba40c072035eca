// Pages of a list, with filter and order, in bounded memory however long the list is.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/status_macros.h"
#include "service/domain/list_query.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

// One page of a list, as List responses tell it.
template <typename Resource>
struct Listed {
  std::vector<Resource> resources;
  std::string next_page_token;
  uint64_t revision = 0;  // a watch from it has no gap
};

// Lists the rows of a collection. `view`: from some rows to the resources that are told of them, in
// the order of the rows; rows that are not for this list are left out. A page can be shorter than
// asked for, or empty, though more follow: one call looks at a bounded number of rows, but for a
// list that is not in the order of names, for which every page looks at all of them.
template <typename Resource, typename View>
class Lister {
 public:
  // `prefix`: of the names that are listed. All references outlive the lister.
  Lister(MetadataStore& store, std::string_view collection, std::string_view prefix,
         const ListQuery& query, View view)
      : store_(store),
        collection_(collection),
        prefix_(prefix),
        query_(query),
        view_(std::move(view)) {}

  absl::StatusOr<Listed<Resource>> Run() {
    return query_.order().is_by_name() ? ByName() : ByOrder();
  }

 private:
  static constexpr std::size_t kRowsAtOnce = 512;
  static constexpr std::size_t kMostRows = 8192;  // that one call by name looks at

  absl::StatusOr<Listed<Resource>> ByName() {
    Listed<Resource> listed;
    std::string at = query_.after();
    for (std::size_t looked_at = 0;;) {
      const std::size_t wanted = query_.page_size() - listed.resources.size();
      const std::size_t limit =
          query_.filter().matches_all() ? wanted : std::min(kRowsAtOnce, kMostRows - looked_at);
      ASSIGN_OR_RETURN(const Page page, store_.List(collection_, at, limit, prefix_));
      if (looked_at == 0) listed.revision = page.revision;
      looked_at += page.rows.size();
      bool full = false;
      RETURN_IF_ERROR(Take(page, &at, &full, &listed));
      if (!full && !page.more) return listed;
      if (full || looked_at >= kMostRows) {
        listed.next_page_token = query_.Seal(at);
        return listed;
      }
    }
  }

  // Moves what matches from `page` to `listed`; `at` is the last name that has been dealt with.
  absl::Status Take(const Page& page, std::string* at, bool* full, Listed<Resource>* listed) {
    ASSIGN_OR_RETURN(std::vector<Resource> resources, view_(page.rows));
    for (Resource& resource : resources) {
      if (!query_.filter().Matches(resource)) continue;
      if (listed->resources.size() == query_.page_size()) {
        *full = true;
        *at = listed->resources.back().name();
        return absl::OkStatus();
      }
      listed->resources.push_back(std::move(resource));
    }
    if (!page.rows.empty()) *at = page.rows.back().name;
    *full = listed->resources.size() == query_.page_size() && page.more;
    return absl::OkStatus();
  }

  // Keeps the first page_size() of those behind the last page's end, and one more.
  absl::StatusOr<Listed<Resource>> ByOrder() {
    Resource last;
    const bool first_page = query_.after().empty();
    if (!first_page) last.ParseFromString(query_.after());  // it was sealed: it is what it was
    const auto before = [this](const Resource& a, const Resource& b) {
      return query_.order().Compare(a, b) < 0;
    };
    Listed<Resource> listed;
    std::vector<Resource>& heap = listed.resources;  // the greatest one is in front
    std::string at;
    for (bool more = true, begun = false; more; begun = true) {
      ASSIGN_OR_RETURN(const Page page, store_.List(collection_, at, kRowsAtOnce, prefix_));
      if (!begun) listed.revision = page.revision;
      ASSIGN_OR_RETURN(std::vector<Resource> resources, view_(page.rows));
      for (Resource& resource : resources) {
        if (!query_.filter().Matches(resource)) continue;
        if (!first_page && !before(last, resource)) continue;
        heap.push_back(std::move(resource));
        std::push_heap(heap.begin(), heap.end(), before);
        if (heap.size() <= query_.page_size() + 1) continue;
        std::pop_heap(heap.begin(), heap.end(), before);
        heap.pop_back();
      }
      more = page.more;
      if (more) at = page.rows.back().name;
    }
    std::sort_heap(heap.begin(), heap.end(), before);
    if (heap.size() > query_.page_size()) {
      heap.pop_back();
      listed.next_page_token = query_.Seal(heap.back().SerializeAsString());
    }
    return listed;
  }

  MetadataStore& store_;
  const std::string_view collection_;
  const std::string_view prefix_;
  const ListQuery& query_;
  View view_;
};

// The page of `query`.
template <typename Resource, typename View>
absl::StatusOr<Listed<Resource>> ListRows(MetadataStore& store, std::string_view collection,
                                          std::string_view prefix, const ListQuery& query,
                                          View view) {
  return Lister<Resource, View>(store, collection, prefix, query, std::move(view)).Run();
}

}  // namespace gabion::service
