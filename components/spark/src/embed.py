"""Entry file of ../embed.yml; imports the package `score` from score.zip (`py_files`)."""

from score.spark import main

main()
