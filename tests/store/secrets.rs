//! The signing secrets beside a store: made once, rotated, retired, loaded again.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use adjutant::journal::{Journal, JournalError};
use adjutant::store::{SqliteStore, StoreCfg};
use adjutant::{Engine, EngineCfg, EngineError, HoldPolicy, LayerRegistry, Role, SigningKey};

use crate::Folder;

#[test]
fn the_secret_is_made_once_and_kept() {
    let folder = Folder::new(StoreCfg::default());
    let first = folder.store().unwrap().secret().to_vec();
    assert_eq!(first.len(), 32);
    let store = folder.store().unwrap();
    assert_eq!(store.secret(), first);
    assert!(!format!("{store:?}").contains(&format!("{:?}", first[0])) || first[0] < 10);
    assert_ne!(Folder::new(StoreCfg::default()).store().unwrap().secret(), first);
}

#[test]
fn a_rotated_secret_leaves_the_former_ones_until_they_are_retired() {
    let folder = Folder::new(StoreCfg::default());
    let kids = |store: &SqliteStore| store.keys().iter().map(SigningKey::kid).collect::<Vec<_>>();
    let store = folder.store().unwrap();
    let first = store.keys();
    assert_eq!((kids(&store), first[0].secret()), (vec![1], store.secret()));
    let second = store.rotate_secret().unwrap();
    assert_eq!((second.kid(), store.keys()), (2, vec![first[0].clone(), second.clone()]));
    assert_ne!(second.secret(), first[0].secret());
    for refused in [2, 3] {
        let error = store.retire_secret(refused).unwrap_err();
        assert!(matches!(error, JournalError::Misuse(_)), "{error:?}");
    }
    drop(store);
    let store = folder.store().unwrap();
    assert_eq!(store.keys(), [first[0].clone(), second.clone()]);
    assert_eq!(store.secret(), second.secret());
    let third = store.rotate_secret().unwrap();
    store.rotate_secret().unwrap();
    let full = store.rotate_secret().unwrap_err();
    assert!(full.to_string().contains("retire one"), "{full}");
    store.retire_secret(1).unwrap();
    store.retire_secret(2).unwrap();
    drop(store);
    // The number of a key that was retired is never given again.
    let store = folder.store().unwrap();
    assert_eq!((kids(&store), &store.keys()[0]), (vec![3, 4], &third));
    assert_eq!(store.rotate_secret().unwrap().kid(), 5);
    let shown = format!("{store:?} {:?}", store.keys());
    assert!(!shown.contains(&format!("{:?}", third.secret())), "{shown}");
    for entry in fs::read_dir(folder.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
    store.close().unwrap();
    assert_eq!(store.rotate_secret(), Err(JournalError::Closed));
}

#[test]
fn a_rotation_that_was_cut_off_leaves_the_keys_as_they_were() {
    let folder = Folder::new(StoreCfg::default());
    let keys = folder.store().unwrap().keys();
    for name in ["secret.fresh", "secret.01", "secret.1", "secret.x", "secrets"] {
        fs::write(folder.path().join(name), b"half").unwrap();
    }
    let store = folder.store().unwrap();
    assert_eq!(store.keys(), keys);
    store.rotate_secret().unwrap();
    fs::write(folder.path().join("secret.2"), b"short").unwrap();
    drop(store);
    assert!(matches!(folder.store(), Err(JournalError::Damaged { .. })));
}

#[tokio::test]
async fn tokens_of_every_kept_key_verify_after_a_restart() {
    let folder = Folder::new(StoreCfg::default());
    let open = async || {
        let store = Arc::new(folder.store().unwrap());
        let cfg = EngineCfg {
            token_keys: store.keys(),
            hold_policy: HoldPolicy::Warn,
            ..EngineCfg::default()
        };
        let engine = Engine::open(cfg, LayerRegistry::new(), store.clone()).await.unwrap();
        (engine, store)
    };
    let hour = Duration::from_secs(3600);
    let (engine, store) = open().await;
    let old = engine.attach("ann", Role::Operator, hour).await.unwrap();
    let key = store.rotate_secret().unwrap();
    engine.signer().rotate(key.kid(), key.secret()).unwrap();
    let new = engine.attach("bob", Role::Operator, hour).await.unwrap();
    engine.shutdown(hour).await;
    drop((engine, store));

    let (engine, store) = open().await;
    assert_eq!(engine.signer().active_kid(), 2);
    for token in [&old, &new] {
        engine.heartbeat(token).await.unwrap();
    }
    engine.retire_key(1).await.unwrap();
    store.retire_secret(1).unwrap();
    assert_eq!(engine.heartbeat(&old).await, Err(EngineError::BadSignature));
    engine.shutdown(hour).await;
    drop((engine, store));

    let (engine, _store) = open().await;
    assert_eq!(engine.heartbeat(&old).await, Err(EngineError::BadSignature));
    engine.heartbeat(&new).await.unwrap();
    engine.shutdown(hour).await;
}
