// How operations are written in the store.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gabion/v1/job.pb.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/any.pb.h"
#include "service/store/metadata_store.h"

namespace gabion::service {

inline constexpr std::string_view kOperations = "operations";
inline constexpr std::string_view kOperationType = "gabion/Operation";
inline constexpr std::string_view kJobs = "jobs";  // what is not done

// Empty if there is none, or if it is damaged. Pure functions; any thread.
v1::JobMetadata MetadataOf(const google::longrunning::Operation& operation);

// Makes it done by the response or the error, which is told as callers may see it.
void SetResult(const absl::StatusOr<google::protobuf::Any>& result,
               google::longrunning::Operation* operation);

// DATA_LOSS if the row is damaged.
absl::StatusOr<google::longrunning::Operation> ParseOperation(const Row& row);
Mutation InsertOperation(const google::longrunning::Operation& operation);

// Calls `visit` with the rows of a collection in the order of their names, a page at a time; ends
// with its first error.
absl::Status ForEachPage(MetadataStore& store, std::string_view collection,
                         absl::FunctionRef<absl::Status(const std::vector<Row>& rows)> visit);

// ABORTED JOB_INTERRUPTED: it cannot go on after a restart, `why`.
absl::Status Interrupted(const std::string& operation, std::string_view why);

}  // namespace gabion::service
