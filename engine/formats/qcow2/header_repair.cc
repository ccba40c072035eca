#include "engine/formats/qcow2/header_repair.h"

#include <array>

#include "engine/base/bytes.h"
#include "engine/base/status_macros.h"
#include "engine/formats/qcow2/layout.h"

namespace gabion::qcow2 {

Task<absl::Status> WriteCheckedFields(TableFile& file, const Header& header) {
  std::array<std::byte, 512> sector;
  CO_RETURN_IF_ERROR(co_await file.Read(0, sector));
  StoreBe64(&sector[kRefcountTableOffsetField], header.refcount_table_offset);
  StoreBe32(&sector[kRefcountTableClustersField], header.refcount_table_clusters);
  if (header.version >= 3) {
    StoreBe64(&sector[kIncompatibleField], header.incompatible);
    StoreBe64(&sector[kAutoclearField], header.autoclear);
  }
  const absl::Status status = co_await file.Write(0, sector);
  co_return status;
}

}  // namespace gabion::qcow2
