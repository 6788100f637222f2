//! The embedded store: what it keeps, and who may share it.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Runtime;

use super::sqlite::Sqlite;
use super::stores::Place;
use super::*;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn open(folder: &Path) -> Arc<Sqlite> {
    let mut stores = Stores::default();
    match stores.find_one(folder.to_str().unwrap()).unwrap() {
        Place::Folder(folder) => stores.embedded(folder.path()).unwrap(),
        Place::Server(url) => panic!("expected a folder, found {url}"),
    }
}

fn opened(stores: &mut Stores, name: &str, place: &str) -> KeyValue {
    let network = Network { resolver: &Arc::default(), certificates: None };
    let places =
        stores.find(vec![(name.to_owned(), place.to_owned())]).unwrap_or_else(|_| panic!("it is found"));
    stores.open(places, &network).unwrap_or_else(|_| panic!("it opens"))
}

fn text(error: &Error) -> String {
    error.to_string()
}

#[test]
fn what_was_set_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let entries = vec![("a".into(), b"1".to_vec()), ("b".into(), vec![0, 255])];
        open(folder.path()).set(entries).await.unwrap();
    });
    runtime().block_on(async {
        let store = open(folder.path());
        assert_eq!(Arc::clone(&store).get("b".into()).await.unwrap(), Some(vec![0, 255]));
        assert!(Arc::clone(&store).exists("a".into()).await.unwrap());
        Arc::clone(&store).delete(vec!["a".into(), "unknown".into()]).await.unwrap();
        assert_eq!(Arc::clone(&store).get("a".into()).await.unwrap(), None);
        let many = store.get_many(vec!["b".into(), "a".into()]).await.unwrap();
        assert_eq!(many, [Some(("b".into(), vec![0, 255])), None]);
    });
}

#[test]
fn a_new_store_may_be_opened_by_many_at_once() {
    for _ in 0..100 {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| drop(open(folder.path())))).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}

#[test]
fn increments_of_many_at_a_time_are_all_counted() {
    let folder = tempfile::tempdir().unwrap();
    // Each has its own connections and its own order of writers, as processes
    // have; and all open a new database at the same moment.
    let opened: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open(folder.path()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    runtime().block_on(async {
        let tasks: Vec<_> = (0..100)
            .map(|n| tokio::spawn(Arc::clone(&opened[n % opened.len()]).increment("n".into(), 2)))
            .collect();
        let mut sums = Vec::new();
        for task in tasks {
            sums.push(task.await.unwrap().unwrap());
        }
        sums.sort_unstable();
        assert_eq!(sums, (1..=100).map(|n| n * 2).collect::<Vec<_>>(), "each saw a sum of its own");
        assert_eq!(Arc::clone(&opened[0]).get("n".into()).await.unwrap(), Some(b"200".to_vec()));
    });
}

#[test]
fn an_increment_of_what_is_no_number_or_too_large_is_an_error_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = open(folder.path());
        let largest = u64::MAX.to_string();
        for value in ["x", "", "-1", "1.5", &largest] {
            Arc::clone(&store).set(vec![("k".into(), value.into())]).await.unwrap();
            let error = Arc::clone(&store).increment("k".into(), 1).await.unwrap_err();
            assert!(text(&error).contains(&largest), "{value:?}: {error}");
            assert_eq!(Arc::clone(&store).get("k".into()).await.unwrap(), Some(value.into()));
        }
        assert_eq!(store.increment("k".into(), 0).await.unwrap(), u64::MAX);
    });
}

#[test]
fn a_listing_has_each_key_once_though_others_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = open(folder.path());
        let key = |n: usize| format!("k{n}");
        let entries = (0..2 * PAGE + 1).map(|n| (key(n), Vec::new())).collect();
        Arc::clone(&store).set(entries).await.unwrap();
        let (first, cursor) = Arc::clone(&store).keys(0).await.unwrap();
        assert_eq!(first.len(), PAGE);
        // Some that were listed go, some change, and a new one comes.
        Arc::clone(&store).delete((0..500).map(key).collect()).await.unwrap();
        Arc::clone(&store).set(vec![(key(600), b"new".to_vec()), ("late".into(), vec![])]).await.unwrap();
        let (mut rest, mut cursor) = (Vec::new(), cursor);
        while let Some(position) = cursor {
            let (keys, next) = Arc::clone(&store).keys(position).await.unwrap();
            rest.extend(keys);
            cursor = next;
        }
        let expected: Vec<_> = (PAGE..2 * PAGE + 1).map(key).chain(["late".to_owned()]).collect();
        assert_eq!(rest, expected);
        assert_eq!(store.keys(u64::MAX).await.unwrap(), (vec![], None), "a cursor of the guest's own");
    });
}

#[test]
fn a_batch_is_set_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let store = open(folder.path());
        // SQLite's own limit on one value stands for anything that fails late.
        let huge = vec![0; 1_000_000_001];
        let entries = vec![("small".to_owned(), b"1".to_vec()), ("huge".to_owned(), huge)];
        assert!(Arc::clone(&store).set(entries).await.is_err());
        assert_eq!(store.get("small".into()).await.unwrap(), None);
    });
}

#[test]
fn workers_that_name_the_same_folder_share_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut stores = Stores::default();
    let place = folder.path().display().to_string();
    let first = opened(&mut stores, "default", &place);
    let second = opened(&mut stores, "x", &format!("{place}/."));
    let (Store::Embedded(one), Store::Embedded(other)) = (&first.0[0].1, &second.0[0].1) else {
        panic!("expected embedded stores");
    };
    assert!(Arc::ptr_eq(one, other));
    assert!(first.open("").is_ok(), "the empty name is the default store");
    assert!(matches!(first.open("x"), Err(Error::NoSuchStore)));
    assert!(matches!(second.open(""), Err(Error::NoSuchStore)));
    assert!(matches!(KeyValue::default().open("default"), Err(Error::AccessDenied)));
}

#[test]
fn workers_that_name_the_same_url_share_a_store_and_a_connection() {
    let mut stores = Stores::default();
    let place = |url| match opened(&mut stores, "default", url).0.remove(0).1 {
        Store::Server(store) => store,
        Store::Embedded(_) => panic!("expected a server"),
    };
    let urls = ["redis://cache", "redis://cache:6379/0", "redis://cache/1", "redis://:x@cache"];
    let [first, same, database, user] = urls.map(place);
    assert!(Arc::ptr_eq(&first, &same));
    assert!(!Arc::ptr_eq(&first, &database) && !Arc::ptr_eq(&first, &user));
}

#[test]
fn a_state_that_was_changed_meanwhile_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let state = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    runtime().block_on(async {
        let mut stores = Stores::default();
        let store = opened(&mut stores, "default", folder.path().to_str().unwrap());
        assert_eq!(store.state().await.unwrap(), Some(state(&[])));
        let first = state(&[("a", "1"), ("b", "1")]);
        assert_eq!(store.change(state(&[]), first.clone(), true).await.unwrap(), Changed::Yes);
        // One changes `a`, one removes `b` and adds `c`: they don't meet.
        let (one, other) = (state(&[("a", "2"), ("b", "1")]), state(&[("a", "1"), ("c", "1")]));
        assert_eq!(store.change(first.clone(), one, true).await.unwrap(), Changed::Yes);
        assert_eq!(store.change(first.clone(), other, true).await.unwrap(), Changed::Yes);
        let now = state(&[("a", "2"), ("c", "1")]);
        assert_eq!(store.state().await.unwrap().as_ref(), Some(&now));
        // Who wants to change, add or remove what another has, does nothing of it.
        for late in [state(&[("a", "9"), ("b", "1"), ("d", "9")]), state(&[("b", "1"), ("d", "9")])] {
            assert_eq!(store.change(first.clone(), late, true).await.unwrap(), Changed::No);
        }
        assert_eq!(store.change(state(&[]), state(&[("c", "9")]), true).await.unwrap(), Changed::No);
        assert_eq!(store.state().await.unwrap().as_ref(), Some(&now));
        // Unless nobody checks.
        let last = state(&[("a", "9"), ("b", "1")]);
        assert_eq!(store.change(first.clone(), last, false).await.unwrap(), Changed::Yes);
        assert_eq!(store.state().await.unwrap(), Some(state(&[("a", "9"), ("c", "1")])));
    });
    runtime().block_on(async {
        assert_eq!(KeyValue::default().state().await.unwrap(), None, "no store is granted");
    });
}

#[test]
fn keys_and_values_have_a_largest_size() {
    assert!(check_key(&"k".repeat(MAX_KEY)).is_ok());
    assert!(check_key(&"k".repeat(MAX_KEY + 1)).is_err());
    assert!(check_key("").is_err());
    assert!(check_entries(&[("k".into(), vec![0; MAX_VALUE])]).is_ok());
    assert!(check_entries(&[("k".into(), vec![0; MAX_VALUE + 1])]).is_err());
    assert!(check_keys(&vec!["k".to_owned(); MAX_KEYS + 1]).is_err());
}

#[test]
fn another_program_s_database_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("kv.sqlite")).unwrap();
    connection.execute_batch("CREATE TABLE theirs (x)").unwrap();
    let error = Sqlite::open(folder.path()).err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "expected a key-value store, found another database");
    connection
        .execute_batch("DROP TABLE theirs; PRAGMA application_id = 0x77686b76; PRAGMA user_version = 2")
        .unwrap();
    let error = Sqlite::open(folder.path()).err().unwrap();
    assert!(
        std::error::Error::source(&error).unwrap().to_string().contains("version 1 of the store, found 2")
    );
}

#[test]
fn a_database_that_is_a_link_is_not_followed() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(open(other.path()));
    let link = folder.path().join("kv.sqlite");
    std::os::unix::fs::symlink(other.path().join("kv.sqlite"), &link).unwrap();
    let error = Sqlite::open(&folder.path().canonicalize().unwrap()).err().unwrap();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("unable to open database file"), "{source}");
}

#[test]
fn a_database_is_opened_as_one_that_others_could_write_to() {
    use rusqlite::config::DbConfig;
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let connection = store.connection().unwrap();
    assert!(connection.db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE).unwrap());
    assert!(!connection.db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA).unwrap());
}
