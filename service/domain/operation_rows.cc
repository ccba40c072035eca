#include "service/domain/operation_rows.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/text.h"
#include "service/errors.h"

namespace gabion::service {

using google::longrunning::Operation;

namespace {

constexpr size_t kPiece = 256;

}  // namespace

v1::JobMetadata MetadataOf(const Operation& operation) {
  v1::JobMetadata metadata;
  if (!operation.metadata().UnpackTo(&metadata)) metadata.Clear();
  return metadata;
}

void SetResult(const absl::StatusOr<google::protobuf::Any>& result, Operation* operation) {
  operation->set_done(true);
  if (result.ok()) {
    *operation->mutable_response() = *result;
  } else {
    *operation->mutable_error() = ToRpcStatus(result.status(), operation->name());
  }
}

absl::StatusOr<Operation> ParseOperation(const Row& row) {
  Operation operation;
  if (!operation.ParseFromString(row.value)) {
    return absl::DataLossError(absl::StrCat("The stored row of ", row.name, " is damaged."));
  }
  return operation;
}

Mutation InsertOperation(const Operation& operation) {
  return Insert(kOperations, operation.name(), operation.SerializeAsString());
}

absl::Status ForEachPage(MetadataStore& store, std::string_view collection,
                         absl::FunctionRef<absl::Status(const std::vector<Row>& rows)> visit) {
  std::string after;
  for (bool more = true; more;) {
    ASSIGN_OR_RETURN(const Page page, store.List(collection, after, kPiece));
    RETURN_IF_ERROR(visit(page.rows));
    more = page.more;
    if (more) after = page.rows.back().name;
  }
  return absl::OkStatus();
}

absl::Status Interrupted(const std::string& operation, std::string_view why) {
  return Error(reason::kJobInterrupted,
               absl::StrCat(operation, " ended when the daemon was restarted: ", AsAbsl(why)))
      .Metadata("operation", operation);
}

}  // namespace gabion::service
