//! Branches of the protocol, by name: a simulator says which of them its runs have reached.

macro_rules! branches {
    ($($name:ident $text:literal $what:literal,)*) => {
        /// A place in the protocol that is worth reaching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Branch {
            $(#[doc = $what] $name,)*
        }

        impl Branch {
            /// Every branch.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// The number of branches.
            pub const COUNT: usize = Self::ALL.len();

            /// The name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What happens there, in a sentence.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$name => $what,)*
                }
            }
        }
    };
}

branches! {
    // Handshake.
    ChallengeSent "challenge_sent" "A Challenge was sent.",
    ChallengeAnswered "challenge_answered" "A Challenge drew a Hello.",
    ChallengeStale "challenge_stale" "A Challenge was no newer than the last.",
    ChallengeLimited "challenge_limited" "A peer asked more often than it gets answers.",
    ChallengeForged "challenge_forged" "A Challenge with a bad signature.",
    ChallengeOfOldLife "challenge_of_old_life" "A Challenge from a life that has ended.",
    UnknownLifeSeen "unknown_life_seen" "A Challenge showed a life that no Hello had announced.",
    HelloUnasked "hello_unasked" "A Hello that echoed no outstanding nonce.",
    HelloForged "hello_forged" "A Hello with a bad signature.",
    HelloOfOldLife "hello_of_old_life" "A Hello of an earlier epoch.",
    HelloOfNewLife "hello_of_new_life" "A Hello began a life.",
    HelloOfSameLife "hello_of_same_life" "A Hello said more about the present life.",
    LifeConflict "life_conflict" "The same epoch with another life.",
    TimestampsRefused "timestamps_refused" "Clock samples that contradict each other.",
    LivesRingFull "lives_ring_full" "A life did not fit into the ring to the verify stage.",
    // Receive.
    RateLimitedPeer "rate_limited_peer" "A peer had no signature check left.",
    RateLimitedStranger "rate_limited_stranger" "Strangers had no signature check left.",
    FromElsewhere "from_elsewhere" "A frame in a peer's name from another address.",
    ReceiveRingFull "receive_ring_full" "A frame did not fit into its ring to the next stage.",
    PoolEmpty "pool_empty" "No slot was free to receive into.",
    // Verify.
    NotForUs "not_for_us" "An envelope for another node.",
    NotSigned "not_signed" "An unsigned envelope on a signed topic.",
    BadSignature "bad_signature" "An envelope with a bad signature.",
    NotPermitted "not_permitted" "A peer published what it may not.",
    Expired "expired" "A message was older than its lifespan when it was verified.",
    VerifiedRingFull "verified_ring_full" "The deliver stage was behind.",
    // Windows.
    NoLife "no_life" "An envelope before the Hello.",
    OldEpoch "old_epoch" "An envelope of a life that has ended.",
    FutureEpoch "future_epoch" "An envelope of a life that no Hello had announced.",
    Replay "replay" "A sequence that was done.",
    BelowWindow "below_window" "A sequence that the window no longer tells apart.",
    TooFarAhead "too_far_ahead" "A jump that no outage explains.",
    OutOfOrder "out_of_order" "A sequence below the highest that was still fresh.",
    WindowJumped "window_jumped" "A jump over the whole window.",
    StreamReopened "stream_reopened" "A Hello moved a stream on that had been unheard for long.",
    // Deliver.
    SchemaMismatch "schema_mismatch" "A message of another type.",
    SubscriberFull "subscriber_full" "A subscriber had no room.",
}

impl std::fmt::Display for Branch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
