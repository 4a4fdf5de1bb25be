"""Coverage-guided fuzzing of every decoder: `targets` lists what is fed, `child` feeds it in a process of its own."""
