#include "netpolicy/nft.hpp"

#include "base/process.hpp"

namespace cellrund::netpolicy {

base::Status run_nft(const std::string& nft, const std::string& ruleset) {
  constexpr auto kBudget = std::chrono::seconds(10);
  constexpr std::size_t kMostSaid = 512;
  base::SpawnOptions command;
  command.argv = {nft, "-f", "-"};
  const auto result = CR_TRY(base::run_command(command, ruleset, base::Deadline::after(kBudget)));
  if (result.exit.signaled || result.exit.value != 0) {
    return base::Error(base::Errc::kFailedPrecondition, nft + ": " + result.err.substr(0, kMostSaid));
  }
  return base::ok();
}

}  // namespace cellrund::netpolicy
