// Resource names: flat, "images/a", "exports/e/connections/7". What a name looks like is declared
// by the google.api.resource option of the resource's message; this reads the declarations.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace gabion::service {

// True for an id that a caller may choose: lower-case letters, digits and hyphens, starting with a
// letter, not ending with a hyphen, at most 63 characters (AIP-122).
bool IsResourceId(std::string_view id);

// True if `name` has the shape of the names of `type` ("gabion/Image"). Ids that the service
// assigns may also start with a digit. False for types that do not exist.
bool IsNameOf(std::string_view type, std::string_view name);

// The type that `name` has the shape of, among all; empty if none.
std::string_view TypeOfName(std::string_view name);

// The name pattern of a type, e.g. "images/{image}"; empty if there is no such type.
std::string_view PatternOf(std::string_view type);

// The type whose names are the parents of those of `child_type`; empty if there is none.
std::string_view ParentTypeOf(std::string_view child_type);

// The collection of a type with flat names: "images" for "gabion/Image"; the last collection for
// others. Empty if there is no such type.
std::string_view CollectionOf(std::string_view type);

// "a" of "images/a"; the last segment.
std::string_view IdOf(std::string_view name);

// The collection of a top-level resource: "images" of "images/a".
std::string_view CollectionOfName(std::string_view name);

// "exports/e" of "exports/e/connections/7": all but the last two segments; empty for flat names.
std::string_view ParentOf(std::string_view name);

// "images/" + id.
std::string MakeName(std::string_view collection, std::string_view id);

}  // namespace gabion::service
