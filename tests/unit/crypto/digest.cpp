#include "crypto/digest.hpp"

#include <doctest/doctest.h>

using namespace cellrund;

TEST_CASE("SHA-256 gives the digests of FIPS 180-4") {
  CHECK(crypto::digest_text(base::as_bytes("abc")) ==
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(crypto::hex(crypto::sha256({})) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  crypto::Sha256 streamed;
  for (int i = 0; i < 1000; ++i) {
    streamed.update(std::string(1000, 'a'));
  }
  CHECK(crypto::hex(streamed.finish()) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a file is hashed from its start, whatever its offset, up to the limit") {
  const std::string content(700 * 1024, 'x');
  const auto fd = base::sealed_memfd("digest", base::as_bytes(content));
  REQUIRE(fd.ok());
  for (int i = 0; i < 2; ++i) {
    const auto digest = crypto::digest_of_fd(fd->get(), content.size());
    REQUIRE(digest.ok());
    CHECK(*digest == crypto::digest_text(base::as_bytes(content)));
  }
  CHECK_FALSE(crypto::digest_of_fd(fd->get(), content.size() - 1).ok());
}

TEST_CASE("only the one spelling of a digest is one") {
  const std::string good = "sha256:" + std::string(64, 'a');
  CHECK(crypto::is_digest_text(good));
  for (const std::string& bad : {std::string(), std::string(64, 'a'), good + "a", "SHA256:" + std::string(64, 'a'),
                                 "sha256:" + std::string(64, 'A'), "sha256:" + std::string(63, 'a') + "g", "sha512:" + std::string(64, 'a')}) {
    CAPTURE(bad);
    CHECK_FALSE(crypto::is_digest_text(bad));
  }
}
