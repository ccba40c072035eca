// The extensions behind the fields of a qcow2 header, for the parser of headers; and how text from
// a file is shown.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "engine/base/units.h"
#include "engine/formats/qcow2/header.h"

namespace gabion::qcow2 {

// Reads the extensions in `area`, from the end of the header's fields to the backing file's name or
// the end of the cluster, into `header`, whose fields have been read. The text in warnings is
// escaped.
absl::Status ReadExtensions(Bytes area, ByteCount file_size, Header& header,
                            std::vector<std::string>& warnings);

// The set bits of `incompatible`, for people: names from the table of feature names in `area`, as
// far as it can be read, otherwise numbers.
std::string DescribeFeatures(uint64_t incompatible, Bytes area);

// `text` from a file as it may stand in a message: escaped, and shortened.
std::string Quoted(std::string_view text);

}  // namespace gabion::qcow2
