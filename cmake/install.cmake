# What `cmake --install` puts in place: the programs that were built, the shim, units, users, folders, documents.
# Units and sysusers go where systemd looks for them below the prefix: install with --prefix /usr (or /usr/local).
include(GNUInstallDirs)

# Programs of later releases need no change here, only their name.
function(hf_install_if_built destination)
  foreach(target ${ARGN})
    if(TARGET ${target})
      install(TARGETS ${target} RUNTIME DESTINATION ${destination} LIBRARY DESTINATION ${destination})
    endif()
  endforeach()
endfunction()

hf_install_if_built(${CMAKE_INSTALL_BINDIR} holdfast)
hf_install_if_built(${CMAKE_INSTALL_SBINDIR} holdfastd holdfast-guard holdfast-motion)
hf_install_if_built(lib/holdfast holdfast_shim)  # not the multiarch folder: one path on every machine, in every config

install(FILES packaging/holdfastd.service packaging/holdfast-guard.service DESTINATION lib/systemd/system)
install(FILES packaging/holdfast.sysusers DESTINATION lib/sysusers.d RENAME holdfast.conf)
install(FILES packaging/holdfast.tmpfiles DESTINATION lib/tmpfiles.d RENAME holdfast.conf)
install(FILES README.md ARCHITECTURE.md HACKING.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY doc/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN "*.md" PATTERN "*.json")

# The command line writes its own completions.
if(TARGET holdfast)
  install(CODE "
    set(share \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}\")
    foreach(place bash-completion/completions/holdfast zsh/vendor-completions/_holdfast
            fish/vendor_completions.d/holdfast.fish)
      get_filename_component(folder \"\${share}/\${place}\" DIRECTORY)
      string(REGEX MATCH \"^[a-z]+\" shell \"\${place}\")
      file(MAKE_DIRECTORY \"\${folder}\")
      execute_process(COMMAND \"$<TARGET_FILE:holdfast>\" completion \${shell} OUTPUT_FILE \"\${share}/\${place}\"
                      COMMAND_ERROR_IS_FATAL ANY)
      message(STATUS \"Installing: \${share}/\${place}\")
    endforeach()")
endif()
