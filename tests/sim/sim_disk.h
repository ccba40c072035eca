// What a file holds on a simulated machine: what is durable, what programs see, and everything
// between, of which a crash leaves any part.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "engine/base/units.h"
#include "engine/io/file.h"
#include "tests/sim/size_history.h"
#include "tests/support/random_source.h"

namespace gabion::sim {

// A file's content with its history, by sector. Sectors that were never written cost nothing,
// however far apart the others are.
//
// (1) Readers see the last version of each sector.
// (2) A sync makes durable what was done by calls that had ended when the sync began; a sector then
//     holds the last such version or a later one.
// (3) A crash leaves of each sector its durable version or any later one, independently of all
//     others, and as the size the durable one, the last one, or what ends a sector between them.
//     Calls that had not ended count with what they had done so far.
//
// Owned by a SimWorld; used on one thread by the files that are open on it.
class SimDisk {
 public:
  static constexpr uint64_t kSector = 512;
  static constexpr uint64_t kBlock = 4096;  // what the file system allocates and punches

  // Names a call that changes the file.
  using Call = uint64_t;

  SimDisk() = default;
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;

  uint64_t size() const { return size_.visible(); }
  // Counts crashes: a file that was opened before one is dead.
  uint64_t generation() const { return generation_; }

  // Reads what is visible now; zeros past the end.
  void Read(uint64_t offset, MutableBytes dst) const;
  // Data and holes as io::File::Map() says.
  std::vector<io::FileExtent> Map(ByteRange range, std::size_t max_extents) const;

  Call BeginCall();
  void EndCall(Call call);
  // Writes within one sector; makes the file longer where that is needed.
  void WriteSector(Call call, uint64_t offset, Bytes src);
  // Zeros within the size. `keep`: allocates instead of punching.
  void Zero(Call call, ByteRange range, bool keep);
  void Resize(Call call, uint64_t size);

  // What a sync that begins now covers; to pass to EndSync().
  uint64_t BeginSync() const { return clock_; }
  void EndSync(uint64_t begun);
  // Makes durable what `call` did in `range`, and that the file is as long as it needs.
  void MakeDurable(Call call, ByteRange range);

  // Keeps one of the states that rule (3) allows.
  void Crash(test::RandomSource& random);

  // Sectors with versions that a crash may still choose among.
  std::size_t unsynced_sectors() const { return unsynced_.size(); }

 private:
  using SectorBytes = std::array<std::byte, kSector>;
  struct Version {
    Call call;
    std::unique_ptr<SectorBytes> bytes;  // null: zeros
  };
  // How a crash chooses.
  struct Fate {
    enum { kOldest, kNewest, kBySector, kByCall } mode;
    test::RandomSource& random;
    std::map<Call, bool> kept;
    bool Keeps(Call call);
    std::size_t Choose(const std::vector<Version>& versions);
  };
  using Sectors = std::map<uint64_t, std::vector<Version>>;  // by number; the first is durable

  void Push(uint64_t sector, Call call, std::unique_ptr<SectorBytes> bytes);
  // Forgets the versions before number `first`, which becomes the durable one.
  void Settle(Sectors::iterator sector, std::size_t first);
  // Zeros that another call has not finished do not count.
  static bool IsDurableZero(const std::vector<Version>& versions) {
    return versions.size() == 1 && versions.front().bytes == nullptr;
  }
  void ZeroPart(Call call, uint64_t offset, uint64_t length);
  void Allocate(uint64_t begin, uint64_t end);
  void Deallocate(uint64_t begin, uint64_t end);
  uint64_t SizeAfterCrash(Fate& fate) const;
  void CutAt(uint64_t size);

  Sectors sectors_;
  std::set<uint64_t> unsynced_;  // numbers of sectors with more than one version
  SizeHistory size_;
  std::map<uint64_t, uint64_t> allocated_;  // begin -> end, in blocks; no two touch
  std::vector<uint64_t> ended_{0};          // when each call ended; call 0 is before everything
  uint64_t clock_ = 0;
  uint64_t generation_ = 0;
};

}  // namespace gabion::sim
