// The kinds of filters: from what the API says of one to what the engine makes of it. A kind is one
// line of the table in filter_registry.cc.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "gabion/v1/filter_spec.pb.h"

namespace gabion::service {

// Where a filter is to stand.
struct FilterPlace {
  std::string path;    // of its spec in the request
  std::string source;  // the export's image
  // An image for the engine, or the error of the API; `field`: where it is named.
  std::function<absl::StatusOr<engine::ImageSpec>(const std::string& name,
                                                  const std::string& field)>
      find_image;
};

// One kind. Lives as long as the program; any thread.
struct FilterKind {
  v1::FilterSpec::KindCase kind;
  // All exports that a named filter is attached to share one state.
  bool shares_state;
  // Makes trouble on purpose: only where the operator allows it.
  bool injects_faults;
  // What the engine is to do, with all that may be left out. REQUIRES: the spec has this kind and
  // CheckFilterSpec() has nothing against it.
  // Null for kinds that name images.
  engine::FilterOptions (*options)(const v1::FilterSpec& spec);
  // What contradicts itself in ways that the rules of the fields do not say:
  // FILTER_PARAMETERS_INVALID at a field below `path`. Null: nothing can.
  absl::Status (*check)(const v1::FilterSpec& spec, const std::string& path);
  // Instead of `options`, of kinds that name images.
  absl::StatusOr<engine::FilterOptions> (*resolve)(const v1::FilterSpec& spec,
                                                   const FilterPlace& place) = nullptr;
};

// Every kind that this version has.
std::span<const FilterKind> FilterKinds();

// The kind of `spec`; null if it has none.
const FilterKind* FindFilterKind(const v1::FilterSpec& spec);

// What the field of FilterSpec is called, "write_protect"; empty without a kind.
std::string FilterKindName(const v1::FilterSpec& spec);

// The image, besides the export's, that a filter needs.
struct NamedImage {
  std::string name;         // images/{image}; empty: none
  bool is_written = false;  // where what clients write reaches the filter
};
NamedImage ImageNamedBy(const v1::FilterSpec& spec);

// What the engine is to do at `place`. REQUIRES: CheckFilterSpec() has nothing against `spec`.
absl::StatusOr<engine::FilterOptions> ResolveFilter(const v1::FilterSpec& spec,
                                                    const FilterPlace& place);

// What can be said against `spec`, which stands at `path` in the request, without an image:
// FILTER_KIND_UNKNOWN, FILTER_KIND_DISABLED, FILTER_PARAMETERS_INVALID.
absl::Status CheckFilterSpec(const v1::FilterSpec& spec, const std::string& path,
                             bool allow_faults);

}  // namespace gabion::service
