/*
 * get, put, release, the SRCU grace period and synchronize of src/mmu-notifier, as a model for spin.
 *
 * One address space with one kind of notifier. Objects come from a pool; an object is LISTED, then UNLISTED (its free is
 * queued), then FREED. The SRCU domain is the code's: two reader counts and an index that a grace period flips.
 *
 *   invalidate   walks the list inside a read section and calls back, with waits in between
 *   user         gets (finds or makes, under the mmap lock) and puts
 *   exiting      release callbacks of what is listed, then unlists, then waits for a grace period
 *   domain       call_srcu: flips, waits for the old readers, frees
 *   unloading    all puts made: synchronize, after which nothing may run or come
 *
 * Mutants, each of which spin must refute: -DPUT_AT_ONCE (no grace period), -DFREE_FIRST (exit frees what it unlists),
 * -DPUT_TWICE (no check of the count), -DNO_BARRIER (synchronize does not wait for queued frees), -DNO_FLIP_WAIT (the
 * grace period does not wait for readers).
 */

#define OBJECTS 3
#define USERS   2
#define READERS 2
#define NONE    255

mtype = { UNUSED, LISTED, UNLISTED, FREED };

mtype state[OBJECTS];
byte users[OBJECTS];
byte running[OBJECTS];
byte frees[OBJECTS];
bool queued[OBJECTS];
bool released[OBJECTS];
byte current = NONE;        /* the listed object, as find(ops) sees it */
byte made = 0;

bool mmap_lock = false;
byte mm_users = USERS;      /* each user holds one while it may get */
bool exited = false;

byte readers[2];            /* SRCU */
byte index = 0;
byte gp_wanted = 0;         /* grace periods asked for, and done */
byte gp_done = 0;
byte puts_left = USERS;
bool unloaded = false;

inline take_mmap()  { atomic { !mmap_lock -> mmap_lock = true } }
inline drop_mmap()  { mmap_lock = false }

inline read_lock(idx)   { atomic { idx = index; readers[idx]++ } }
inline read_unlock(idx) { atomic { assert(readers[idx] > 0); readers[idx]-- } }

inline do_free(o) {
  assert(state[o] == UNLISTED);   /* I-MN-3: freed once, after it was unlisted */
  assert(running[o] == 0);        /* I-MN-3: not while a callback runs */
  state[o] = FREED;
  frees[o]++;
  assert(frees[o] == 1)
}

/* One callback: begins, waits, ends. */
inline callback(o) {
  atomic {
    assert(state[o] != FREED);    /* I-MN-3: no callback after the free */
    assert(!unloaded);            /* synchronize: nothing comes any more */
    running[o]++
  }
  atomic {
    assert(state[o] != FREED);
    running[o]--
  }
}

inline put(o) {
  atomic {
#ifndef PUT_TWICE
    assert(users[o] > 0);         /* I-MN-4 */
#endif
    if
    :: users[o] > 0 -> users[o]--
    :: else -> skip
    fi;
    if
    :: users[o] == 0 ->
       if
       :: state[o] == LISTED -> state[o] = UNLISTED
       :: else -> skip
       fi;
       if
       :: current == o -> current = NONE
       :: else -> skip
       fi;
#ifdef PUT_AT_ONCE
       do_free(o)
#else
       queued[o] = true;
       gp_wanted++
#endif
    :: else -> skip
    fi
  }
}

active [USERS] proctype user() {
  byte mine = NONE;
  take_mmap();
  atomic {
    if
    :: current != NONE -> mine = current; users[mine]++
    :: else ->
       mine = made;
       made++;
       assert(mine < OBJECTS);
       state[mine] = LISTED;
       users[mine] = 1;
       current = mine
    fi
  }
  drop_mmap();
  /* The space may exit from here on: the object holds the structure, not the space. */
  atomic { mm_users--; }
  put(mine);
#ifdef PUT_TWICE
  put(mine);
#endif
  atomic { mine = NONE; puts_left-- }
}

active [READERS] proctype invalidate() {
  byte idx;
  byte o;
  read_lock(idx);
  atomic { o = current }            /* the list as the walk finds it */
  if
  :: o != NONE -> callback(o)
  :: else -> skip
  fi;
  atomic { o = NONE }
  read_unlock(idx)
}

active proctype exiting() {
  byte idx;
  byte o;
  byte target;
  atomic { mm_users == 0 -> exited = true }
  read_lock(idx);
  atomic { o = current }
  if
  :: o != NONE ->
     atomic { assert(!released[o]); released[o] = true }
     callback(o)
  :: else -> skip
  fi;
  atomic {
    if
    :: o != NONE && state[o] == LISTED ->
       state[o] = UNLISTED;
       current = NONE;
#ifdef FREE_FIRST
       do_free(o)
#endif
    :: else -> skip
    fi
  }
  read_unlock(idx);
  atomic { gp_wanted++; target = gp_wanted }
  (gp_done >= target);
  o = NONE
}

/* call_srcu: what is queued before a flip is freed when the readers of the old index are gone. */
active proctype domain() {
  byte batch;
  byte old;
  byte o;
  bool mine[OBJECTS];
end:
  do
  :: atomic {
       gp_done < gp_wanted ->
       batch = gp_wanted;
       o = 0;
       do
       :: o < OBJECTS -> mine[o] = queued[o]; queued[o] = false; o++
       :: else -> break
       od;
       old = index;
       index = 1 - index
     }
#ifndef NO_FLIP_WAIT
     (readers[old] == 0);
#endif
     o = 0;
     do
     :: o < OBJECTS ->
        atomic {
          if
          :: mine[o] -> do_free(o); mine[o] = false
          :: else -> skip
          fi;
          o++
        }
     :: else -> break
     od;
     gp_done = batch
  od
}

active proctype unloading() {
  byte target;
  byte o = 0;
  (puts_left == 0);
#ifndef NO_BARRIER
  atomic { gp_wanted++; target = gp_wanted }
  (gp_done >= target);
#endif
  do
  :: o < OBJECTS ->
     atomic {
       assert(state[o] == UNUSED || state[o] == FREED || state[o] == 0);
       assert(running[o] == 0);
       o++
     }
  :: else -> break
  od;
  unloaded = true
}
