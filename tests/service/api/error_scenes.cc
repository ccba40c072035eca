#include "tests/service/api/error_scenes.h"

#include <iterator>
#include <utility>

namespace gabion::service {
namespace {

using Scenes = std::vector<ErrorScene>;

const std::string kImages = "gabion.v1.ImageService/";
const std::string kExports = "gabion.v1.ExportService/";
const std::string kFilters = "gabion.v1.FilterService/";
const std::string kInspect = "gabion.v1.InspectService/";
const std::string kOperations = "google.longrunning.Operations/";
const std::string kImageF = R"({"imageId":"f","image":{"raw":{},"virtualSizeBytes":"512"}})";
const std::string kExportF = R"({"exportId":"f","export":{"source":"images/a"}})";

std::string Sized(const std::string& sizes) {
  return R"({"exportId":"f","export":{"source":"images/a","blockSizes":{)" + sizes + "}}}";
}

Scenes FieldScenes() {
  return {
      {reason::kFieldRequired, kImages + "CreateImage", R"({"imageId":"f","image":{"raw":{}}})",
       "INVALID_ARGUMENT FIELD_REQUIRED field=image.virtual_size_bytes | field "
       "image.virtual_size_bytes FIELD_REQUIRED"},
      {reason::kFieldImmutable, kImages + "UpdateImage",
       R"({"image":{"name":"images/a","pool":"pools/other"},"updateMask":"pool"})",
       "INVALID_ARGUMENT FIELD_IMMUTABLE field=image.pool | field image.pool FIELD_IMMUTABLE"},
      {reason::kFieldMaskInvalid, kImages + "UpdateImage",
       R"({"image":{"name":"images/a"},"updateMask":"nonsense"})",
       "INVALID_ARGUMENT FIELD_MASK_INVALID field=update_mask | field update_mask "
       "FIELD_MASK_INVALID"},
      {reason::kFieldInvalid, kExports + "CreateExport",
       R"({"exportId":"f","export":{"source":"images/a","nbdName":"a\nb"}})",
       "INVALID_ARGUMENT FIELD_INVALID field=export.nbd_name | field export.nbd_name "
       "FIELD_INVALID"},
      {reason::kFieldOutOfRange, kInspect + "Read", R"({"name":"images/a","length":"2097152"})",
       "INVALID_ARGUMENT FIELD_OUT_OF_RANGE allowed=from 1 to 1048576 field=length value=2097152 "
       "| field length FIELD_OUT_OF_RANGE"},
      {reason::kFieldNotPowerOfTwo, kInspect + "Map", R"({"name":"images/a","granularityBytes":3})",
       "INVALID_ARGUMENT FIELD_NOT_POWER_OF_TWO allowed=a power of two from 1 to 1073741824 "
       "field=granularity_bytes value=3 | field granularity_bytes FIELD_NOT_POWER_OF_TWO"},
      {reason::kFieldTooLong, kExports + "CreateExport",
       R"({"exportId":"f","export":{"source":"images/a","description":")" + std::string(5000, 'x') +
           R"("}})",
       "INVALID_ARGUMENT FIELD_TOO_LONG field=export.description | field export.description "
       "FIELD_TOO_LONG"},
      {reason::kFieldTooShort, kInspect + "Write", R"({"name":"images/a","data":""})",
       "INVALID_ARGUMENT FIELD_TOO_SHORT field=data | field data FIELD_TOO_SHORT"},
      {reason::kNameInvalid, kImages + "GetImage", R"({"name":"images/No"})",
       "INVALID_ARGUMENT NAME_INVALID allowed=images/{image} field=name value=images/No | field "
       "name NAME_INVALID"},
      {reason::kPageSizeNegative, kImages + "ListImages", R"({"pageSize":-1})",
       "INVALID_ARGUMENT PAGE_SIZE_NEGATIVE allowed=at least 0 field=page_size value=-1 | field "
       "page_size PAGE_SIZE_NEGATIVE"},
      {reason::kPageTokenInvalid, kImages + "ListImages", R"({"pageToken":"forged"})",
       "INVALID_ARGUMENT PAGE_TOKEN_INVALID field=page_token | field page_token "
       "PAGE_TOKEN_INVALID"},
      {reason::kFilterExpressionInvalid, kImages + "ListImages", R"({"filter":"state ="})",
       "INVALID_ARGUMENT FILTER_EXPRESSION_INVALID field=filter | field filter "
       "FILTER_EXPRESSION_INVALID"},
      {reason::kRequestIdReused, kImages + "UpdateImage",
       R"({"image":{"name":"images/slow","labels":{"tier":"silver"}},)"
       R"("requestId":"0b5d9a0e-6f0a-4c57-9d2f-8a1b2c3d4e5f"})",
       "INVALID_ARGUMENT REQUEST_ID_REUSED field=request_id | field request_id REQUEST_ID_REUSED",
       [](ErrorStage& stage) { stage.Remember("0b5d9a0e-6f0a-4c57-9d2f-8a1b2c3d4e5f"); }},
  };
}

Scenes BlockSizeScenes() {
  return {
      {reason::kBlockSizeNotPowerOfTwo, kExports + "CreateExport", Sized(R"("minimumBytes":513)"),
       "INVALID_ARGUMENT BLOCK_SIZE_NOT_POWER_OF_TWO allowed=a power of two from 1 to 65536 "
       "field=export.block_sizes.minimum_bytes value=513 | field "
       "export.block_sizes.minimum_bytes BLOCK_SIZE_NOT_POWER_OF_TWO"},
      {reason::kBlockSizeOutOfRange, kExports + "CreateExport", Sized(R"("minimumBytes":131072)"),
       "INVALID_ARGUMENT BLOCK_SIZE_OUT_OF_RANGE allowed=a power of two from 1 to 65536 "
       "field=export.block_sizes.minimum_bytes value=131072 | field "
       "export.block_sizes.minimum_bytes BLOCK_SIZE_OUT_OF_RANGE"},
      {reason::kBlockSizeOrder, kExports + "CreateExport",
       Sized(R"("minimumBytes":4096,"preferredBytes":512)"),
       "INVALID_ARGUMENT BLOCK_SIZE_ORDER allowed=at least minimum_bytes, 4096 "
       "field=export.block_sizes.preferred_bytes value=512 | field "
       "export.block_sizes.preferred_bytes BLOCK_SIZE_ORDER"},
      {reason::kBlockSizeBelowStorage, kExports + "CreateExport", kExportF,
       "INVALID_ARGUMENT BLOCK_SIZE_BELOW_STORAGE field=export.block_sizes.minimum_bytes | field "
       "export.block_sizes.minimum_bytes BLOCK_SIZE_BELOW_STORAGE",
       [](ErrorStage& stage) {
         stage.Fail("CreateExport", absl::InvalidArgumentError("The storage needs 512 bytes."),
                    reason::kBlockSizeBelowStorage);
       }},
      {reason::kSizeNotMultipleOfMinimum, kExports + "CreateExport",
       Sized(R"("minimumBytes":512,"tail":"TAIL_REFUSE")"),
       "FAILED_PRECONDITION SIZE_NOT_MULTIPLE_OF_MINIMUM field=export.block_sizes.tail "
       "minimum=512 size=1000 | field export.block_sizes.tail SIZE_NOT_MULTIPLE_OF_MINIMUM | "
       "precondition SIZE_NOT_MULTIPLE_OF_MINIMUM exports/f"},
  };
}

std::string Filter(const std::string& spec) {
  return R"({"filterId":"f","filter":{"spec":)" + spec + "}}";
}

std::string Stacked(const std::string& entries) {
  return R"({"exportId":"f","export":{"source":"images/a","filterStack":[)" + entries + "]}}";
}

// 65 entries.
std::string TooManyEntries() {
  const std::string entry = R"({"spec":{"log":{}}})";
  std::string entries = entry;
  for (int i = 0; i < 64; ++i) entries += "," + entry;
  return entries;
}

Scenes FilterScenes() {
  return {
      {reason::kFieldOrder, kFilters + "CreateFilter",
       Filter(R"({"throttle":{"readOps":{"averagePerSecond":"10","burstPerSecond":"5"}}})"),
       "INVALID_ARGUMENT FIELD_ORDER allowed=at least average_per_second, 10 "
       "field=filter.spec.throttle.read_ops.burst_per_second value=5 | field "
       "filter.spec.throttle.read_ops.burst_per_second FIELD_ORDER"},
      {reason::kFilterKindUnknown, kFilters + "CreateFilter", Filter("{}"),
       "INVALID_ARGUMENT FILTER_KIND_UNKNOWN field=filter.spec.kind | field filter.spec.kind "
       "FILTER_KIND_UNKNOWN"},
      {reason::kFilterKindDisabled, kFilters + "CreateFilter", Filter(R"({"fault":{}})"),
       "FAILED_PRECONDITION FILTER_KIND_DISABLED field=filter.spec.fault | field "
       "filter.spec.fault FILTER_KIND_DISABLED | precondition FILTER_KIND_DISABLED fault"},
      {reason::kFilterParametersInvalid, kFilters + "CreateFilter",
       Filter(R"({"slice":{"range":{"offsetBytes":"2","lengthBytes":"18446744073709551615"}}})"),
       "INVALID_ARGUMENT FILTER_PARAMETERS_INVALID field=filter.spec.slice.range.length_bytes | "
       "field filter.spec.slice.range.length_bytes FILTER_PARAMETERS_INVALID"},
      {reason::kFilterStackTooDeep, kExports + "CreateExport", Stacked(TooManyEntries()),
       "INVALID_ARGUMENT FILTER_STACK_TOO_DEEP field=export.filter_stack | field "
       "export.filter_stack FILTER_STACK_TOO_DEEP"},
      {reason::kStackEntryDuplicate, kExports + "CreateExport",
       Stacked(R"({"entryId":"x","spec":{"log":{}}},{"entryId":"x","spec":{"log":{}}})"),
       "INVALID_ARGUMENT STACK_ENTRY_DUPLICATE entry-id=x field=export.filter_stack[1].entry_id "
       "index=1 | field export.filter_stack[1].entry_id STACK_ENTRY_DUPLICATE"},
      {reason::kFilterAlreadyAttached, kExports + "AttachFilter",
       R"({"name":"exports/e","entry":{"filter":"filters/slow","entryId":"slow"}})",
       "ALREADY_EXISTS FILTER_ALREADY_ATTACHED entry-id=slow field=entry.entry_id | field "
       "entry.entry_id FILTER_ALREADY_ATTACHED | resource gabion/FilterStackEntry slow",
       [](ErrorStage& stage) { stage.Attach("slow", "delay {}", "exports/e"); }},
      {reason::kFilterInUse, kFilters + "DeleteFilter", R"({"name":"filters/slow"})",
       "FAILED_PRECONDITION FILTER_IN_USE exports=exports/e | precondition FILTER_IN_USE "
       "filters/slow"},
      {reason::kStackIncompatible, kExports + "DetachFilter",
       R"({"name":"exports/e","entryId":"slow"})",
       "FAILED_PRECONDITION STACK_INCOMPATIBLE_WITH_CONNECTIONS export=exports/e | precondition "
       "STACK_INCOMPATIBLE_WITH_CONNECTIONS exports/e",
       [](ErrorStage& stage) {
         stage.Fail("UpdateExport", absl::FailedPreconditionError("Clients know another size."),
                    reason::kStackIncompatible);
       }},
      {reason::kQuiesceTimeout, kFilters + "UpdateFilter",
       R"({"filter":{"name":"filters/slow","spec":{"delay":{"read":"1s"}}}})",
       "ABORTED QUIESCE_TIMEOUT export=exports/e | retry",
       [](ErrorStage& stage) {
         stage.Fail("UpdateExport", absl::AbortedError("Requests are still in flight."),
                    reason::kQuiesceTimeout);
       }},
  };
}

std::string Import(const std::string& file, const std::string& more = "") {
  return R"({"imageId":"f","image":{"raw":{})" + more + R"(},"sourceFile":")" + file + R"("})";
}

Scenes ImageScenes() {
  return {
      {reason::kShrinkNotAllowed, kImages + "UpdateImage",
       R"({"image":{"name":"images/a","virtualSizeBytes":"10"}})",
       "INVALID_ARGUMENT SHRINK_NOT_ALLOWED field=image.virtual_size_bytes | field "
       "image.virtual_size_bytes SHRINK_NOT_ALLOWED"},
      {reason::kSizeMismatch, kImages + "ImportImage",
       Import("disk.img", R"(,"virtualSizeBytes":"8")"),
       "INVALID_ARGUMENT SIZE_MISMATCH field=image.virtual_size_bytes size=7 | field "
       "image.virtual_size_bytes SIZE_MISMATCH",
       [](ErrorStage& stage) { stage.PutFile("disk.img", "content"); }},
      {reason::kFormatMismatch, kImages + "ImportImage", Import("disk.img"),
       "INVALID_ARGUMENT FORMAT_MISMATCH field=source_file | field source_file FORMAT_MISMATCH",
       [](ErrorStage& stage) {
         stage.Fail("CheckBuild", absl::InvalidArgumentError("The file is no raw image."),
                    reason::kFormatMismatch);
       }},
      {reason::kPathOutsidePool, kImages + "ImportImage", Import("../disk.img"),
       "PERMISSION_DENIED PATH_OUTSIDE_POOL field=source_file | field source_file "
       "PATH_OUTSIDE_POOL"},
      {reason::kImageInUse, kImages + "DeleteImage", R"({"name":"images/a"})",
       "FAILED_PRECONDITION IMAGE_IN_USE exports=exports/e image=images/a | precondition "
       "IMAGE_IN_USE images/a"},
      {reason::kImageNotDeleted, kImages + "UndeleteImage", R"({"name":"images/a"})",
       "FAILED_PRECONDITION IMAGE_NOT_DELETED image=images/a | precondition IMAGE_NOT_DELETED "
       "images/a"},
      {reason::kImageNotActive, kInspect + "Read", R"({"name":"images/slow","length":"1"})",
       "FAILED_PRECONDITION IMAGE_NOT_ACTIVE image=images/slow | precondition IMAGE_NOT_ACTIVE "
       "images/slow"},
      {reason::kImageDeleted, kInspect + "Read", R"({"name":"images/buried","length":"1"})",
       "FAILED_PRECONDITION IMAGE_DELETED image=images/buried purge-time=* | precondition "
       "IMAGE_DELETED images/buried",
       [](ErrorStage& stage) { stage.Bury("buried"); }},
      {reason::kImageFileMissing, kInspect + "Read", R"({"name":"images/lost","length":"1"})",
       "FAILED_PRECONDITION IMAGE_FILE_MISSING image=images/lost | precondition "
       "IMAGE_FILE_MISSING images/lost",
       [](ErrorStage& stage) {
         EXPECT_TRUE(stage.CreateImage("lost", 512).ok());
         stage.RemoveFile("lost.raw");
       }},
      {reason::kOperationInProgress, kImages + "DeleteImage", R"({"name":"images/slow"})",
       "ABORTED OPERATION_IN_PROGRESS operation=operations/* | retry"},
      {reason::kSizeOutOfRange, kImages + "CreateImage",
       R"({"imageId":"f","image":{"raw":{},"virtualSizeBytes":"9223372036854775808"}})",
       "OUT_OF_RANGE SIZE_OUT_OF_RANGE allowed=from 1 to 9223372036854710272 "
       "field=image.virtual_size_bytes value=9223372036854775808 | field "
       "image.virtual_size_bytes SIZE_OUT_OF_RANGE"},
      {reason::kPoolFull, kImages + "CreateImage", kImageF,
       "RESOURCE_EXHAUSTED POOL_FULL | quota pools/default",
       [](ErrorStage& stage) {
         stage.Fail("CheckBuild", absl::ResourceExhaustedError("The pool has no space left."));
       }},
      {reason::kResourceExists, kImages + "CreateImage",
       R"({"imageId":"a","image":{"raw":{},"virtualSizeBytes":"1000"}})",
       "ALREADY_EXISTS RESOURCE_EXISTS | resource gabion/Image images/a"},
      {reason::kResourceExistsDifferent, kImages + "CreateImage",
       R"({"imageId":"a","image":{"raw":{},"virtualSizeBytes":"1001"}})",
       "ALREADY_EXISTS RESOURCE_EXISTS_DIFFERENT differing-fields=virtual_size_bytes | resource "
       "gabion/Image images/a"},
      {reason::kResourceNotFound, kImages + "GetImage", R"({"name":"images/none"})",
       "NOT_FOUND RESOURCE_NOT_FOUND | resource gabion/Image images/none"},
      {reason::kEtagMismatch, kImages + "DeleteImage",
       R"({"name":"images/a","etag":"\"of another time\""})", "ABORTED ETAG_MISMATCH etag=*"},
      {reason::kConcurrentUpdate, kImages + "UpdateImage",
       R"({"image":{"name":"images/a","labels":{"tier":"bronze"}}})",
       "ABORTED CONCURRENT_UPDATE | retry",
       [](ErrorStage& stage) { stage.ChangeUnderTheNextCall(); }},
  };
}

// What the engine says when exports/f is to be served.
ErrorScene Refused(absl::Status status, const ErrorReason& reason, std::string summary) {
  return {reason, kExports + "CreateExport", kExportF, std::move(summary),
          [status = std::move(status), reason](ErrorStage& stage) {
            stage.Fail("CreateExport", status, reason);
          }};
}

Scenes ExportScenes() {
  return {
      {reason::kImageLocked, kExports + "CreateExport",
       R"({"exportId":"f","export":{"source":"images/locked"}})",
       "FAILED_PRECONDITION IMAGE_LOCKED image=images/locked perm-byte=101 | precondition "
       "IMAGE_LOCKED images/locked",
       [](ErrorStage& stage) {
         EXPECT_TRUE(stage.CreateImage("locked", 512).ok());
         stage.Lock("locked.raw");
       }},
      Refused(absl::FailedPreconditionError("The file carries another image's uid."),
              reason::kImageReplaced,
              "FAILED_PRECONDITION IMAGE_REPLACED image=images/a | precondition IMAGE_REPLACED "
              "images/a"),
      Refused(absl::FailedPreconditionError("The file cannot be written."),
              reason::kImageNotWritable,
              "FAILED_PRECONDITION IMAGE_NOT_WRITABLE image=images/a | precondition "
              "IMAGE_NOT_WRITABLE images/a"),
      Refused(absl::UnavailableError("The pool does not answer."), reason::kPoolUnreachable,
              "UNAVAILABLE POOL_UNREACHABLE | retry"),
      {reason::kFeatureNotBuilt, kExports + "CreateExport",
       R"({"exportId":"f","export":{"source":"images/a",)"
       R"("access":{"transport":"TRANSPORT_TLS_REQUIRED"}}})",
       "UNIMPLEMENTED FEATURE_NOT_BUILT field=export.access.transport | field "
       "export.access.transport FEATURE_NOT_BUILT"},
      {reason::kExportHasConnections, kExports + "DeleteExport", R"({"name":"exports/e"})",
       "FAILED_PRECONDITION EXPORT_HAS_CONNECTIONS export=exports/e | precondition "
       "EXPORT_HAS_CONNECTIONS exports/e",
       [](ErrorStage& stage) { stage.Connect("exports/e"); }},
      {reason::kExportReadOnly, kInspect + "Write", R"({"name":"exports/r","data":"eA=="})",
       "FAILED_PRECONDITION EXPORT_READ_ONLY export=exports/r | precondition EXPORT_READ_ONLY "
       "exports/r",
       [](ErrorStage& stage) {
         const auto read_only = [](v1::Export* exported) { exported->set_read_only(true); };
         EXPECT_TRUE(stage.CreateExport("r", "images/a", read_only).ok());
       }},
      {reason::kTooManyExports, kExports + "CreateExport", kExportF,
       "RESOURCE_EXHAUSTED TOO_MANY_EXPORTS limit=2 | quota exports"},
  };
}

Scenes ChainScenes() {
  return {
      {reason::kImageHasDependents, kImages + "DeleteImage", R"({"name":"images/short1"})",
       "FAILED_PRECONDITION IMAGE_HAS_DEPENDENTS dependents=images/short2 image=images/short1 | "
       "precondition IMAGE_HAS_DEPENDENTS images/short1",
       [](ErrorStage& stage) { stage.MakeChain("short", 2); }},
      {reason::kChainTooDeep, kImages + "CloneImage", R"({"imageId":"f","source":"images/deep64"})",
       "FAILED_PRECONDITION CHAIN_TOO_DEEP field=source image=images/deep64 | field source "
       "CHAIN_TOO_DEEP | precondition CHAIN_TOO_DEEP images/deep64",
       [](ErrorStage& stage) { stage.MakeChain("deep", 64); }},
      {reason::kFeatureUnsupported, kImages + "CheckImage", R"({"name":"images/a"})",
       "FAILED_PRECONDITION FEATURE_UNSUPPORTED feature=check image=images/a | precondition "
       "FEATURE_UNSUPPORTED images/a"},
      {reason::kImageCorrupt, kImages + "ResizeImage",
       R"({"name":"images/bad1","virtualSizeBytes":"1024"})",
       "DATA_LOSS IMAGE_CORRUPT image=images/bad1",
       [](ErrorStage& stage) {
         stage.MakeChain("bad", 1);
         stage.Corrupt("bad1.qcow2");
       }},
  };
}

Scenes OperationScenes() {
  return {
      {reason::kOperationNotDone, kOperations + "DeleteOperation", R"({"name":"$PAUSED"})",
       "FAILED_PRECONDITION OPERATION_NOT_DONE operation=operations/* | precondition "
       "OPERATION_NOT_DONE operations/*"},
      {reason::kTooManyJobs, kImages + "CreateImage", kImageF,
       "RESOURCE_EXHAUSTED TOO_MANY_JOBS limit=2 | quota operations",
       [](ErrorStage& stage) { stage.CreatePausedImage("slower"); }},
      {reason::kOperationCancelled, kOperations + "GetOperation", R"({"name":"$PAUSED"})",
       "CANCELLED OPERATION_CANCELLED operation=operations/*",
       [](ErrorStage& stage) { stage.CancelPaused(); }, true},
      {reason::kOperationDone, "gabion.v1.JobService/PauseJob", R"({"name":"$PAUSED"})",
       "FAILED_PRECONDITION OPERATION_DONE operation=operations/* | precondition OPERATION_DONE "
       "operations/*"},
      {reason::kJobInterrupted, kOperations + "GetOperation", R"({"name":"operations/lost"})",
       "ABORTED JOB_INTERRUPTED operation=operations/lost | retry",
       [](ErrorStage& stage) { stage.LoseAnOperation("operations/lost"); }, true},
  };
}

Scenes DaemonScenes() {
  return {
      {reason::kOffsetBeyondEnd, kInspect + "Read",
       R"({"name":"images/a","offset":"999","length":"2"})",
       "OUT_OF_RANGE OFFSET_BEYOND_END field=offset size=1000 | field offset OFFSET_BEYOND_END"},
      {reason::kInternal, kInspect + "Read", R"({"name":"images/a","length":"1"})",
       "INTERNAL INTERNAL | request",
       [](ErrorStage& stage) { stage.Fail("Read", absl::InternalError("a secret")); }},
      {reason::kRevisionCompacted, "gabion.v1.WatchService/Watch",
       R"({"afterRevision":"1000000000"})",
       "OUT_OF_RANGE REVISION_COMPACTED field=after_revision oldest-revision=* | field "
       "after_revision REVISION_COMPACTED"},
      {reason::kWatchLagged, "gabion.v1.WatchService/Watch",
       R"({"collections":["images"],"sendInitial":true})",
       "ABORTED WATCH_LAGGED revision=* | retry",
       [](ErrorStage& stage) { stage.OutrunTheNextWatch(); }},
      {reason::kRateLimited, kImages + "DeleteImage", R"({"name":"images/none"})",
       "RESOURCE_EXHAUSTED RATE_LIMITED limit=1024 | quota calls | retry",
       [](ErrorStage& stage) { stage.FillTheQueue(); }},
      {reason::kDraining, kImages + "DeleteImage", R"({"name":"images/a"})",
       "UNAVAILABLE DRAINING | retry", [](ErrorStage& stage) { stage.Drain(); }},
  };
}

}  // namespace

Scenes ErrorScenes() {
  Scenes all;
  for (Scenes part : {FieldScenes(), BlockSizeScenes(), FilterScenes(), ImageScenes(),
                      ExportScenes(), ChainScenes(), OperationScenes(), DaemonScenes()}) {
    std::move(part.begin(), part.end(), std::back_inserter(all));
  }
  return all;
}

}  // namespace gabion::service
