#include "engine/nbd/protocol/option_payload.h"

#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "engine/nbd/protocol/wire.h"
#include "engine/nbd/protocol/wire_string.h"

namespace gabion::nbd {
namespace {

// Takes fields from the front of a payload and never reads past its end. Lives on the stack of a
// decoder.
class PayloadReader {
 public:
  explicit PayloadReader(Bytes payload) : rest_(payload) {}

  absl::StatusOr<uint16_t> Take16(std::string_view what) {
    ASSIGN_OR_RETURN(const Bytes field, Take(sizeof(uint16_t), what));
    return LoadBe16(field.data());
  }
  absl::StatusOr<uint32_t> Take32(std::string_view what) {
    ASSIGN_OR_RETURN(const Bytes field, Take(sizeof(uint32_t), what));
    return LoadBe32(field.data());
  }
  // A 32-bit length and as many bytes, which must be a string by the protocol's rules.
  absl::StatusOr<std::string> TakeString(std::string_view what) {
    ASSIGN_OR_RETURN(const uint32_t length, Take32(what));
    ASSIGN_OR_RETURN(const Bytes field, Take(length, what));
    RETURN_IF_ERROR(ValidateString(what, AsText(field)));
    return std::string(AsText(field));
  }
  absl::Status ExpectEnd() const {
    if (rest_.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("the payload is ", rest_.size(), " bytes longer than its fields"));
  }
  size_t size() const { return rest_.size(); }

 private:
  absl::StatusOr<Bytes> Take(size_t count, std::string_view what) {
    if (count > rest_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("the payload ends within the ", AsAbsl(what),
                                                     ": ", count, " bytes expected, ", rest_.size(),
                                                     " left"));
    }
    const Bytes taken = rest_.first(count);
    rest_ = rest_.subspan(count);
    return taken;
  }

  Bytes rest_;
};

}  // namespace

absl::StatusOr<InfoRequest> DecodeInfoRequest(Bytes payload) {
  PayloadReader reader(payload);
  InfoRequest request;
  ASSIGN_OR_RETURN(request.export_name, reader.TakeString("export name"));
  ASSIGN_OR_RETURN(const uint16_t count, reader.Take16("number of information requests"));
  for (uint16_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(const uint16_t type, reader.Take16("list of information requests"));
    switch (static_cast<InfoType>(type)) {
      case InfoType::kName:
        request.wants_name = true;
        break;
      case InfoType::kDescription:
        request.wants_description = true;
        break;
      case InfoType::kBlockSize:
        request.wants_block_size = true;
        break;
      default:  // EXPORT is sent anyway; what we do not know the protocol has us ignore
        break;
    }
  }
  RETURN_IF_ERROR(reader.ExpectEnd());
  return request;
}

absl::StatusOr<MetaContextRequest> DecodeMetaContextRequest(Bytes payload, size_t max_queries) {
  PayloadReader reader(payload);
  MetaContextRequest request;
  ASSIGN_OR_RETURN(request.export_name, reader.TakeString("export name"));
  ASSIGN_OR_RETURN(const uint32_t count, reader.Take32("number of queries"));
  if (count > reader.size() / sizeof(uint32_t)) {  // each query has a length at least
    return absl::InvalidArgumentError(
        absl::StrCat("the payload announces ", count, " queries in ", reader.size(), " bytes"));
  }
  if (count > max_queries) {
    return absl::ResourceExhaustedError(
        absl::StrCat(count, " queries are more than the ", max_queries, " allowed"));
  }
  request.queries.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(std::string query, reader.TakeString("query"));
    request.queries.push_back(std::move(query));
  }
  RETURN_IF_ERROR(reader.ExpectEnd());
  return request;
}

}  // namespace gabion::nbd
