"""Entry file of ../embed.yml: the package `score` comes beside it, in score.zip (`py_files`)."""

from score.spark import main

main()
