"""Coverage-guided fuzzing of every decoder: `targets` says what is fed and checked, `child` feeds it in a process."""
