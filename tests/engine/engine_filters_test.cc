// Filters of served exports: what clients are told, and changes under them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/engine_filters_fixture.h"
#include "tests/support/random_source.h"

namespace gabion::engine {
namespace {

using ::testing::HasSubstr;

TEST_P(EngineFiltersTest, AlignmentOfAFilterIsTheMinimumThatClientsAreTold) {
  const auto state = Create({Entry("log", filters::LogOptions{.failures_only = true}),
                             Entry("sectors", filters::FaultOptions{.alignment = 4096})});
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->effective.minimum.bytes, 4096u);
  EXPECT_EQ(state->effective.minimum.origin, block::SizeOrigin::kFilter);
  EXPECT_EQ(state->effective.minimum.determined_by, "sectors");
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  EXPECT_EQ(nbd_get_block_size(nbd.get(), LIBNBD_SIZE_MINIMUM), 4096);
  nbd_set_strict_mode(nbd.get(), 0);
  const std::string odd(1000, 'x');
  EXPECT_EQ(nbd_pwrite(nbd.get(), odd.data(), odd.size(), 777, 0), 0) << nbd_get_error();
  std::string back(1000, 0);
  EXPECT_EQ(nbd_pread(nbd.get(), back.data(), back.size(), 777, 0), 0) << nbd_get_error();
  EXPECT_EQ(back, odd);
}

TEST_P(EngineFiltersTest, FaultsReachClientsAsTheirErrors) {
  const filters::FaultRule rule{.operations = Bit(filters::Operation::kWrite),
                                .range = Range(0, 4096),
                                .error = absl::StatusCode::kResourceExhausted,
                                .max_hits = 1};
  ASSERT_TRUE(Create({Entry("full", filters::FaultOptions{.rules = {rule}})}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  const std::string data(512, 'x');
  EXPECT_EQ(nbd_pwrite(nbd.get(), data.data(), data.size(), 4096, 0), 0);
  EXPECT_EQ(nbd_pwrite(nbd.get(), data.data(), data.size(), 0, 0), -1);
  EXPECT_EQ(nbd_get_errno(), ENOSPC);
  EXPECT_EQ(nbd_pwrite(nbd.get(), data.data(), data.size(), 0, 0), 0);
  EXPECT_EQ(Counter("full", "rule_0_hits"), 1u);
}

TEST_P(EngineFiltersTest, FeaturesThatAreHiddenAreNotAdvertised) {
  ASSERT_TRUE(Create({Entry("mask", filters::FeatureMaskOptions{.hide_trim = true,
                                                                .hide_fua = true,
                                                                .hide_holes = true,
                                                                .hide_multi_conn = true})})
                  .ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  EXPECT_EQ(nbd_can_trim(nbd.get()), 0);
  EXPECT_EQ(nbd_can_fua(nbd.get()), 0);
  EXPECT_EQ(nbd_can_multi_conn(nbd.get()), 0);
  EXPECT_EQ(nbd_can_zero(nbd.get()), 1);
  struct Seen {
    static int Chunk(void* data, const void*, size_t, uint64_t, unsigned status, int*) {
      if (status == LIBNBD_READ_HOLE) ++*static_cast<int*>(data);
      return 0;
    }
    static int Extents(void* data, const char*, uint64_t, uint32_t* entries, size_t count, int*) {
      for (size_t i = 1; i < count; i += 2) *static_cast<uint32_t*>(data) |= entries[i];
      return 0;
    }
  };
  int holes = 0;
  std::string back(65536, 'x');
  const nbd_chunk_callback chunk{.callback = Seen::Chunk, .user_data = &holes};
  EXPECT_EQ(nbd_pread_structured(nbd.get(), back.data(), back.size(), 0, chunk, 0), 0);
  EXPECT_EQ(back, std::string(65536, '\0'));
  EXPECT_EQ(holes, 0);
  uint32_t flags = 0;
  const nbd_extent_callback extents{.callback = Seen::Extents, .user_data = &flags};
  EXPECT_EQ(nbd_block_status(nbd.get(), kBytes, 0, extents, 0), 0) << nbd_get_error();
  EXPECT_EQ(flags, 0u);
}

TEST_P(EngineFiltersTest, FiltersComeAndGoUnderAConnectedClient) {
  ASSERT_TRUE(Create({}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  test::RandomSource random;
  std::vector<std::byte> model(kBytes);
  const FilterOptions kinds[] = {filters::StatsOptions{},
                                 filters::DelayOptions{.read = std::chrono::microseconds(50)},
                                 filters::ReadaheadOptions{},
                                 filters::RetryOptions{},
                                 filters::AlignOptions{.alignment = 4096, .max_transfer = 65536},
                                 filters::SliceOptions{},
                                 filters::FeatureMaskOptions{.hide_trim = true}};
  for (int round = 0; round < 60; ++round) {
    std::vector<FilterEntry> entries;
    for (uint64_t i = random.Below(5); i > 0; --i) {
      entries.push_back(Entry(absl::StrCat("f", i), kinds[random.Below(std::size(kinds))]));
    }
    // Requests that are under way while the filters change.
    std::array<std::string, 8> buffers;
    std::vector<int64_t> cookies;
    for (std::string& buffer : buffers) {
      const ByteRange range = random.RangeWithin(kBytes / buffers.size() / 4);
      const uint64_t at = static_cast<uint64_t>(&buffer - buffers.data()) * (kBytes / 8);
      buffer.assign(range.length.value, static_cast<char>(random.Below(256)));
      std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(at + range.offset.value),
                  buffer.size(), std::byte(static_cast<unsigned char>(buffer[0])));
      cookies.push_back(nbd_aio_pwrite(nbd.get(), buffer.data(), buffer.size(),
                                       at + range.offset.value, NBD_NULL_COMPLETION, 0));
      ASSERT_GE(cookies.back(), 0) << nbd_get_error();
    }
    const auto changed = Change(entries);
    ASSERT_TRUE(changed.ok()) << changed.status();
    while (nbd_aio_in_flight(nbd.get()) > 0) ASSERT_GE(nbd_poll(nbd.get(), -1), 0);
    for (const int64_t cookie : cookies) {
      ASSERT_EQ(nbd_aio_command_completed(nbd.get(), static_cast<uint64_t>(cookie)), 1)
          << nbd_get_error();
    }
  }
  std::vector<std::byte> back(kBytes);
  ASSERT_EQ(nbd_pread(nbd.get(), back.data(), back.size(), 0, 0), 0) << nbd_get_error();
  EXPECT_TRUE(back == model);
}

TEST_P(EngineFiltersTest, WhatConnectedClientsCouldNotSurviveIsRefusedWithTheirNames) {
  ASSERT_TRUE(Create({}).ok());
  Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  ASSERT_EQ(nbd_flush(nbd.get(), 0), 0);  // it has been admitted
  const std::pair<FilterOptions, const char*> changes[] = {
      {filters::SliceOptions{.range = Range(4096, 0)}, "another size"},
      {filters::ResizeOptions{filters::ResizeOptions::Mode::kSize, 2 * kBytes}, "another size"},
      {filters::ReadOnlyOptions{}, "another writability"},
      {filters::FaultOptions{.alignment = 512}, "a larger minimum block size"},
  };
  for (const auto& [options, what] : changes) {
    for (const auto& answer : {Check({Entry("new", options)}), Change({Entry("new", options)})}) {
      EXPECT_EQ(ReasonIn(answer.status()), "STACK_INCOMPATIBLE_WITH_CONNECTIONS");
      EXPECT_THAT(std::string(answer.status().message()), HasSubstr(what));
      EXPECT_THAT(MetadataIn(answer.status(), "connections"), HasSubstr("exports/e/connections/"));
    }
  }
  // The same size, and other bytes.
  const std::vector<FilterEntry> moved = {
      Entry("longer", filters::ResizeOptions{filters::ResizeOptions::Mode::kSize, kBytes}),
      Entry("part", filters::SliceOptions{.range = Range(4096, 0)})};
  EXPECT_THAT(std::string(Change(moved).status().message()), HasSubstr("other bytes"));
  std::string data(512, 'x');
  EXPECT_EQ(nbd_pwrite(nbd.get(), data.data(), data.size(), 0, 0), 0) << nbd_get_error();
  nbd.reset();
  absl::StatusOr<ExportState> changed = Change(moved);
  while (ReasonIn(changed.status()) == "STACK_INCOMPATIBLE_WITH_CONNECTIONS") {
    changed = Change(moved);  // until its end is noticed
  }
  ASSERT_TRUE(changed.ok()) << changed.status();
  nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  std::string back(512, 0);
  EXPECT_EQ(nbd_pread(nbd.get(), back.data(), back.size(), 0, 0), 0);
  EXPECT_EQ(back, std::string(512, '\0'));
}

TEST_P(EngineFiltersTest, AChangeThatIsNotQuietInTimeLeavesTheOldFilters) {
  const FilterEntry slow = Entry("slow", filters::DelayOptions{.read = std::chrono::seconds(60)});
  ASSERT_TRUE(Create({slow}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  std::string buffer(512, 0);
  ASSERT_GE(nbd_aio_pread(nbd.get(), buffer.data(), buffer.size(), 0, NBD_NULL_COMPLETION, 0), 0);
  while (Counter("slow", "waiting") == 0) ASSERT_GE(nbd_poll(nbd.get(), 0), 0);
  const auto refused =
      Change({Entry("stats", filters::StatsOptions{}), slow}, std::chrono::milliseconds(20));
  EXPECT_EQ(ReasonIn(refused.status()), "QUIESCE_TIMEOUT");
  EXPECT_EQ(MetadataIn(refused.status(), "timeout"), "20 ms");
  EXPECT_EQ(Counter("slow", "waiting"), 1u);
  // Parameters change at once, also for the one that waits.
  ASSERT_TRUE(Change({Entry("slow", filters::DelayOptions{})}).ok());
  while (nbd_aio_in_flight(nbd.get()) > 0) ASSERT_GE(nbd_poll(nbd.get(), -1), 0);
  EXPECT_TRUE(Change({Entry("stats", filters::StatsOptions{}), slow}).ok());
}

TEST_P(EngineFiltersTest, ExportsThatShareAThrottleShareItsBudget) {
  ASSERT_TRUE(CreateImage("b", kBytes).ok());
  FilterEntry entry = Entry("t", filters::ThrottleOptions{.read_bytes = {.per_second = 1000}});
  entry.shared_as = "filters/t/1";
  ASSERT_TRUE(Create({entry}).ok());
  ExportSpec other = Export("f", "b");
  other.filters = {entry};
  ASSERT_TRUE(CreateExport(other).ok());
  const Nbd first = Connect("e");
  const Nbd second = Connect("f");
  ASSERT_TRUE(first != nullptr && second != nullptr);
  std::string buffer(4096, 0);
  // All of the budget, and seconds of it in advance.
  ASSERT_EQ(nbd_pread(first.get(), buffer.data(), buffer.size(), 0, 0), 0);
  ASSERT_GE(nbd_aio_pread(second.get(), buffer.data(), buffer.size(), 0, NBD_NULL_COMPLETION, 0),
            0);
  ASSERT_GE(nbd_aio_pread(first.get(), buffer.data(), buffer.size(), 0, NBD_NULL_COMPLETION, 0), 0);
  for (int i = 0; i < 20; ++i) {
    ASSERT_GE(nbd_poll(second.get(), 0), 0);
    ASSERT_GE(nbd_poll(first.get(), 0), 0);
    ASSERT_GE(Counter("t", "requests"), 1u);
  }
  EXPECT_EQ(nbd_aio_in_flight(first.get()), 1);
  EXPECT_EQ(nbd_aio_in_flight(second.get()), 1);
  // Each export is told, and then none has a limit any more.
  entry.options = filters::ThrottleOptions{};
  ASSERT_TRUE(Change({entry}).ok());
  other.filters = {entry};
  ASSERT_TRUE(UpdateExport(other).ok());
  for (const Nbd* nbd : {&first, &second}) {
    while (nbd_aio_in_flight(nbd->get()) > 0) ASSERT_GE(nbd_poll(nbd->get(), -1), 0);
  }
}

TEST_P(EngineFiltersTest, NobodyWaitsInAFilterOfAnExportThatGoesAway) {
  const FilterOptions waits[] = {
      filters::ThrottleOptions{.read_operations = {.per_second = 1}},
      filters::DelayOptions{.read = std::chrono::seconds(60)},
  };
  for (const FilterOptions& options : waits) {
    for (const DeleteMode mode : {DeleteMode::kHard, DeleteMode::kShutdown}) {
      ASSERT_TRUE(Create({Entry("slow", options)}).ok());
      const Nbd nbd = Connect("e");
      ASSERT_NE(nbd, nullptr);
      std::vector<std::string> buffers(100, std::string(512, 0));  // a minute and more of waiting
      for (std::string& buffer : buffers) {
        ASSERT_GE(nbd_aio_pread(nbd.get(), buffer.data(), buffer.size(), 0, NBD_NULL_COMPLETION, 0),
                  0);
      }
      const char* const counter =
          options.index() == FilterOptions(waits[0]).index() ? "requests" : "waiting";
      while (Counter("slow", counter) < buffers.size()) ASSERT_GE(nbd_poll(nbd.get(), 0), 0);
      const auto begin = std::chrono::steady_clock::now();
      EXPECT_EQ(DeleteExport("exports/e", mode), absl::OkStatus());
      EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
    }
  }
}

// What ended at the end when it began is still whole when it arrives.
TEST_P(EngineFiltersTest, TheImageGrowsWhileRequestsWaitAboveWhatNeedsAlignment) {
  ASSERT_TRUE(CreateImage("odd", 1000).ok());
  ExportSpec waits = Export("waits", "odd");
  waits.filters = {Entry("units", filters::AlignOptions{.alignment = 4096}),
                   Entry("slow", filters::DelayOptions{.read = std::chrono::milliseconds(300),
                                                       .write = std::chrono::milliseconds(300)})};
  ExportSpec sectors = Export("sectors", "odd");
  sectors.filters = {Entry("slow", filters::DelayOptions{.read = std::chrono::milliseconds(300)}),
                     Entry("fault", filters::FaultOptions{.alignment = 512})};
  sectors.block_sizes.tail = block::TailPolicy::kExact;
  ExportSpec grows = Export("grows", "odd");
  grows.block_sizes.minimum = 4096;
  grows.block_sizes.tail = block::TailPolicy::kPadGrow;
  for (const ExportSpec& spec : {waits, sectors, grows}) {
    const auto created = CreateExport(spec);
    ASSERT_TRUE(created.ok()) << created.status();
  }
  const Nbd first = Connect("waits");
  const Nbd second = Connect("sectors");
  const Nbd third = Connect("grows");
  ASSERT_TRUE(first != nullptr && second != nullptr && third != nullptr);
  nbd_set_strict_mode(third.get(), 0);
  std::string written(100, 'w');
  std::string read(1000, '?');
  std::string grown(4096, 'g');
  ASSERT_GE(nbd_aio_pwrite(first.get(), written.data(), written.size(), 0, NBD_NULL_COMPLETION, 0),
            0);
  ASSERT_GE(nbd_aio_pread(second.get(), read.data(), read.size(), 0, NBD_NULL_COMPLETION, 0), 0);
  ASSERT_EQ(nbd_pwrite(third.get(), grown.data() + 1000, 3096, 1000, 0), 0) << nbd_get_error();
  for (const Nbd* nbd : {&first, &second}) {
    while (nbd_aio_in_flight(nbd->get()) > 0) ASSERT_GE(nbd_poll(nbd->get(), -1), 0);
  }
  std::string all(4096, '?');
  ASSERT_EQ(nbd_pread(third.get(), all.data(), all.size(), 0, 0), 0) << nbd_get_error();
  EXPECT_EQ(all, written + std::string(900, '\0') + grown.substr(1000));
}

TEST_P(EngineFiltersTest, WhatAFilterAsksForByItselfKeepsNobodyWaiting) {
  const filters::FaultRule never{.operations = Bit(filters::Operation::kCache)};
  ASSERT_TRUE(
      Create({Entry("ahead", filters::ReadaheadOptions{}),
              Entry("again", filters::RetryOptions{.max_retries = 1000,
                                                   .initial_backoff = std::chrono::seconds(60),
                                                   .max_backoff = std::chrono::hours(1)}),
              Entry("broken", filters::FaultOptions{.rules = {never}})})
          .ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  std::string buffer(65536, 0);
  for (uint64_t at = 0; at < 8 * buffer.size(); at += buffer.size()) {
    ASSERT_EQ(nbd_pread(nbd.get(), buffer.data(), buffer.size(), at, 0), 0);
  }
  EXPECT_TRUE(Change({Entry("stats", filters::StatsOptions{})}).ok());
}

TEST_P(EngineFiltersTest, TheEngineStopsWhileAChangeWaitsForRequests) {
  ASSERT_TRUE(
      Create({Entry("slow", filters::DelayOptions{.read = std::chrono::seconds(60)})}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  std::string buffer(512, 0);
  ASSERT_GE(nbd_aio_pread(nbd.get(), buffer.data(), buffer.size(), 0, NBD_NULL_COMPLETION, 0), 0);
  while (Counter("slow", "waiting") == 0) ASSERT_GE(nbd_poll(nbd.get(), 0), 0);
  ExportSpec spec = Export("e", "a");
  spec.quiesce_timeout = std::chrono::seconds(600);
  std::promise<void> answered;
  engine_->UpdateExport(spec, [&](absl::StatusOr<ExportState>) { answered.set_value(); });
  const auto begin = std::chrono::steady_clock::now();
  Stop();
  answered.get_future().wait();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
}

TEST_P(EngineFiltersTest, ACheckTellsOfClientsWhatTheChangeDoes) {
  ASSERT_TRUE(Create({}).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  char byte = 0;
  ASSERT_EQ(nbd_pread(nbd.get(), &byte, 1, 0, 0), 0);  // it has been taken in
  for (const bool other_sizes : {false, true}) {
    std::vector<FilterEntry> entries = {Entry("stats", filters::StatsOptions{})};
    if (other_sizes) entries.push_back(Entry("align", filters::AlignOptions{.alignment = 65536}));
    const auto checked = Check(entries);
    const auto changed = Change(entries);
    ASSERT_TRUE(checked.ok() && changed.ok()) << checked.status() << changed.status();
    EXPECT_EQ(changed->connection_count, 1u);
    EXPECT_EQ(changed->sizes_propagated, !other_sizes);
    for (const ExportState& state : {*checked, *changed}) {
      EXPECT_EQ(state.connection_count, changed->connection_count);
      EXPECT_EQ(state.sizes_propagated, changed->sizes_propagated);
      EXPECT_EQ(state.read_only_propagated, changed->read_only_propagated);
      EXPECT_EQ(state.generation, changed->generation);
      EXPECT_EQ(state.effective.preferred.bytes, changed->effective.preferred.bytes);
    }
  }
}

TEST_P(EngineFiltersTest, WhatIsToldOfAPieceIsToldOfAllOfIt) {
  ExportSpec spec = Export("e", "a");
  spec.block_sizes.minimum = 65536;
  ASSERT_TRUE(CreateExport(spec).ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  const std::string data(4096, 'x');
  nbd_set_strict_mode(nbd.get(), 0);
  ASSERT_EQ(nbd_pwrite(nbd.get(), data.data(), data.size(), 163840, 0), 0);
  const std::vector<Explanation> pieces = Explain("exports/e", Range(0, kBytes));
  ASSERT_GE(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].range, Range(0, 131072));
  EXPECT_TRUE(pieces[0].told->zero);
  EXPECT_EQ(pieces[1].range, Range(131072, 32768));
  EXPECT_EQ(pieces[1].told->units, Range(131072, 65536));
  EXPECT_FALSE(pieces[1].told->zero);
  EXPECT_FALSE(pieces[2].told->zero);
}

TEST_P(EngineFiltersTest, TheWayOfARangeIsExplained) {
  ASSERT_TRUE(
      Create({Entry("longer", filters::ResizeOptions{filters::ResizeOptions::Mode::kSize, kBytes}),
              Entry("off", filters::StatsOptions{}),
              Entry("part", filters::SliceOptions{.range = Range(512, 0)}),
              Entry("sectors", filters::FaultOptions{.alignment = 1024})})
          .ok());
  const Nbd nbd = Connect("e");
  ASSERT_NE(nbd, nullptr);
  const std::string data(4096, 'x');
  ASSERT_EQ(nbd_pwrite(nbd.get(), data.data(), data.size(), 4096, 0), 0);
  const std::vector<Explanation> data_is = Explain("exports/e", Range(4096, 1024));
  ASSERT_EQ(data_is.size(), 1u);
  const Explanation& one = data_is[0];
  EXPECT_EQ(one.range, Range(4096, 1024));
  ASSERT_EQ(one.steps.size(), 5u);
  using Effect = ExplainedStep::Effect;
  EXPECT_EQ(one.steps[0].entry_id, "longer");
  EXPECT_EQ(one.steps[0].effect, Effect::kNone);
  EXPECT_EQ(one.steps[2].entry_id, "part");
  EXPECT_EQ(one.steps[2].effect, Effect::kShifted);
  EXPECT_EQ(one.steps[2].below, ByteOffset{4096 + 512});
  EXPECT_EQ(one.steps[3].what, ExplainedStep::What::kAligner);
  EXPECT_EQ(one.steps[4].entry_id, "sectors");
  ASSERT_EQ(one.layers.size(), 1u);
  EXPECT_EQ(one.layers[0].state, ExplainedLayer::State::kData);
  EXPECT_EQ(one.layers[0].file_name, "a.raw");
  EXPECT_EQ(one.layers[0].host_offset, 4096 + 512);
  ASSERT_TRUE(one.told.has_value());
  EXPECT_EQ(one.told->granule, 1024u);
  EXPECT_FALSE(one.told->zero);
  EXPECT_FALSE(one.told->merged);
  const std::vector<Explanation> end = Explain("exports/e", Range(kBytes - 1024, 1024));
  ASSERT_EQ(end.size(), 2u);
  EXPECT_EQ(end[0].range, Range(kBytes - 1024, 512));
  EXPECT_TRUE(end[0].told->merged);
  EXPECT_EQ(end[1].range, Range(kBytes - 512, 512));
  ASSERT_EQ(end[1].steps.size(), 1u);
  EXPECT_EQ(end[1].steps[0].effect, Effect::kMadeUp);
  EXPECT_TRUE(end[1].layers.empty());
  EXPECT_TRUE(end[1].told->zero);
}

INSTANTIATE_TEST_SUITE_P(Shards, EngineFiltersTest, ::testing::Values(1u, 3u));

}  // namespace
}  // namespace gabion::engine
