//! Rows that are well formed and cannot be: a state comes of them all the same, and keeps its rules.

use super::*;

/// The rows of a busy world with one field of one row replaced, and what is built of them.
fn with(row: (TableName, String), field: &str, value: Value) -> Rebuilt {
    let (mut world, _, _) = busy();
    let image = world.rows.get_mut(&row).expect("the row is there");
    let mut json: Value = serde_json::from_slice(image).unwrap();
    json[field] = value;
    *image = serde_json::to_vec(&json).unwrap();
    sound(world.rebuilt())
}

/// Fails unless the state keeps its rules, and keeps them through a recovery.
fn sound(mut rebuilt: Rebuilt) -> Rebuilt {
    rebuilt.state.audit().unwrap();
    rebuilt.state.recover(Now { unix: 5_000, ms: 900_000 });
    rebuilt.state.commit(&mut Vec::new());
    rebuilt.state.audit().unwrap();
    rebuilt
}

fn task_row(task: TaskId) -> (TableName, String) {
    (TableName::Tasks, task.to_string())
}

#[test]
fn a_task_that_does_not_fit_its_parent_is_set_aside() {
    let (_, _, tasks) = busy();
    let child = TaskId::from_bits(6);
    for (task, field, value) in [
        (child, "depth", json!(7)),
        (child, "root", json!(tasks[0])),
        // In a circle, and its own parent.
        (tasks[1], "parent", json!(child)),
        (tasks[1], "parent", json!(tasks[1])),
    ] {
        let rebuilt = with(task_row(task), field, value);
        let aside = |row: &SetAside| row.table == "tasks" && row.why.contains("parent");
        assert!(rebuilt.set_aside.iter().any(aside), "{field}: {:?}", rebuilt.set_aside);
    }
}

#[test]
fn a_task_whose_counters_are_at_their_end_is_set_aside() {
    let (_, _, tasks) = busy();
    let rebuilt = with(task_row(tasks[1]), "revision", json!(u64::MAX));
    assert!(rebuilt.set_aside.iter().any(|row| row.key == tasks[1].to_string()));
}

#[test]
fn a_live_attempt_whose_row_names_a_foreign_token_keeps_its_own() {
    let (world, _, tasks) = busy();
    let session = world.rows.keys().find(|(table, _)| *table == TableName::Sessions).unwrap();
    let session: Value = serde_json::from_slice(&world.rows[session]).unwrap();
    let row = (TableName::Attempts, format!("{}/1", tasks[1]));
    let (mut world, _, _) = busy();
    let image = world.rows.get_mut(&row).unwrap();
    let mut json: Value = serde_json::from_slice(image).unwrap();
    json["tokens"] = json!([session["token"]]);
    *image = serde_json::to_vec(&json).unwrap();
    let handle: HandleKey = serde_json::from_value(json["handle"].clone()).unwrap();
    let Rebuilt { state, .. } = world.rebuilt();
    state.audit().unwrap();
    assert_eq!(state.resolve_handle(&handle, world.now), Ok((tasks[1], 1)));
    sound(world.rebuilt());
}

#[test]
fn a_handle_that_two_attempts_name_is_nobodys() {
    let (mut world, _, tasks) = busy();
    let rows = [tasks[0], tasks[1]].map(|task| (TableName::Attempts, format!("{task}/1")));
    let live: Value = serde_json::from_slice(&world.rows[&rows[1]]).unwrap();
    let handle: HandleKey = serde_json::from_value(live["handle"].clone()).unwrap();
    assert_eq!(world.rebuilt().state.resolve_handle(&handle, world.now), Ok((tasks[1], 1)));
    let image = world.rows.get_mut(&rows[0]).unwrap();
    let mut ended: Value = serde_json::from_slice(image).unwrap();
    ended["handle"] = live["handle"].clone();
    *image = serde_json::to_vec(&ended).unwrap();
    let Rebuilt { state, set_aside } = world.rebuilt();
    state.audit().unwrap();
    assert!(state.resolve_handle(&handle, world.now).is_err());
    for (_, key) in rows {
        assert!(set_aside.iter().any(|row| row.key == key && row.why.contains("handle")), "{key}");
    }
    sound(world.rebuilt());
}

#[test]
fn an_event_with_the_number_0_ends_the_tail() {
    let (world, _, _) = busy();
    let mut event = world.events[0].clone();
    event.seq = 0;
    let Rebuilt { state, .. } = rebuild(&world.rows, Mark::default(), &[event]);
    state.audit().unwrap();
}

#[test]
fn the_last_place_of_an_output_is_a_place() {
    let (mut world, _, tasks) = busy();
    let row = world.rows[&(TableName::Outputs, format!("{}/1/0", tasks[0]))].clone();
    let key = format!("{}/1/{}", tasks[0], u32::MAX);
    world.rows.insert((TableName::Outputs, key), row);
    sound(world.rebuilt());
}
